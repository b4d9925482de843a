"""Both stages from a recipe to a model: done marks, resuming, and errors on the way."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerState

from steer.errors import CorpusError, RecipeError, TrainingError
from steer.models.latent_model import LatentModel
from steer.training import autoencoder as autoencoder_stage
from steer.training import base as base_stage
from steer.training.autoencoder import train_autoencoder
from steer.training.base import build_base, train_base, train_tokenizer
from steer.training.latent_trainer import LatentTrainer
from steer.training.recipe import BaseRecipe, Recipe
from steer.training.stage import is_done
from steer.training.trainer import Bar, StageTrainer, compiles, seconds_trained, training_arguments

# `Trainer` and its parts warn of old argument names and of settings that are meant; none of that is ours to change.
pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")

TRAIN = {"batch_size": 2, "warmup_steps": 1, "bf16": False, "compile": "off", "eval_every": 100, "save_every": 2}


def recipe_of(*, steps: int = 4, pretrained: str | None = None, **train: Any) -> Recipe:
    base = {
        "vocab_size": 300,
        "block": 32,
        "architecture": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        },
        "train": {**TRAIN, "steps": steps, "optimizer": "muon", **train},
    }
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"sources": [{"path": "stories.txt"}], "validation_share": 0.2},
            **({"pretrained": pretrained} if pretrained else {"base": base}),
            "autoencoder": {
                "span_tokens": 8,
                "z_dim": 6,
                "soft_tokens": 2,
                "lora_rank": 2,
                "lora_alpha": 2,
                "spans": 2,
                "context_lengths": [4, 8],
                "train": {**TRAIN, "steps": steps, "batch_size": 16, **train},
            },
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    names = ("fox", "dog", "cat", "hen")
    stories = [f"The {names[i % 4]} saw {i} birds. It ran home! Was it glad? It was." for i in range(150)]
    (folder / "stories.txt").write_text("\n<|endoftext|>\n".join(stories))
    return folder


@pytest.fixture(scope="module")
def base_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train_base(recipe_of(), out, data)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys() and first
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-5, rtol=0, msg=name)


class Interrupted(BaseException):
    """Stands for a killed process: not an `Exception`, so that nothing on the way can take it for a failure."""


def interrupt_after(monkeypatch: pytest.MonkeyPatch, trainer: type, step: int) -> None:
    """Let the trainer die at the beginning of the step after `step`."""
    inner = trainer.training_step  # type: ignore[attr-defined]

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step >= step:
            raise Interrupted
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(trainer, "training_step", training_step)


# The base stage -------------------------------------------------------------------------------------------------------


def test_a_base_is_trained_from_scratch_and_loads(base_run: Path) -> None:
    folder = base_run / "base" / "model"
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|pad|>")
    assert model.config.eos_token_id == tokenizer.eos_token_id and model.config.use_cache
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    text = "The fox saw 3 birds.\n\tNaïve – “quoted”."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    done = json.loads((base_run / "base" / "done.json").read_text())
    assert done["parameters"] == sum(p.numel() for p in model.parameters())
    assert done["eval_loss"] > 0
    assert [json.loads(line) for line in (base_run / "base" / "curve.jsonl").read_text().splitlines()]


def test_a_stage_that_is_done_is_not_done_again(
    base_run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in base_run.rglob("*")}
    monkeypatch.setattr(base_stage, "load_splits", None)
    with caplog.at_level(logging.INFO, "steer"):
        assert train_base(recipe_of(), base_run, data) == base_run / "base" / "model"
    assert "base: already done" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in base_run.rglob("*")} == before


@pytest.mark.parametrize("step", [1, 3])
def test_an_interrupted_base_resumes_to_the_same_weights(
    base_run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(patch, StageTrainer, step)
        train_base(recipe_of(), tmp_path, data)
    assert not is_done(tmp_path / "base")
    train_base(recipe_of(), tmp_path, data)
    assert is_done(tmp_path / "base")
    assert_same_weights(base_run / "base" / "model", tmp_path / "base" / "model")


def test_a_run_that_died_before_its_mark_is_finished(base_run: Path, data: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(base_run, tmp_path / "run"))
    (out / "base" / "done.json").unlink()
    (out / "base" / "model" / "model.safetensors").unlink()
    train_base(recipe_of(), out, data)
    assert is_done(out / "base")
    assert_same_weights(base_run / "base" / "model", out / "base" / "model")


def test_a_checkpoint_that_does_not_fit_says_what_to_do(base_run: Path, data: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(base_run, tmp_path / "run"))
    (out / "base" / "done.json").unlink()
    changed = recipe_of().model_dump()
    changed["base"]["architecture"]["hidden_size"] = 48
    with pytest.raises(TrainingError, match="base.architecture.hidden_size was 32, now it is 48. .* into a new folder"):
        train_base(Recipe.model_validate(changed), out, data)
    kept = out / "base" / "settings.json"  # edited by hand, say
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"base": changed["base"]}))
    with pytest.raises(TrainingError, match="(?s)cannot go on from .*checkpoint-4.*train into a new folder"):
        train_base(Recipe.model_validate(changed), out, data)


def test_a_validation_split_is_held_out(base_run: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_run / "base" / "model")
    splits = []
    for name in ("train", "validation"):
        folder = base_run / "corpus" / name
        tokens, offsets = np.load(folder / "tokens.npy"), np.load(folder / "offsets.npy")
        splits.append({tokenizer.decode(tokens[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)})
    assert len(splits[0]) + len(splits[1]) == 150
    assert not splits[0] & splits[1]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"hidden_size": 32}, "needs `model_type`"),
        ({"model_type": "nothing_such"}, "not accepted by transformers"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_a_recipe_error(architecture: dict[str, Any], message: str) -> None:
    base = BaseRecipe.model_validate({"architecture": architecture, "train": {"steps": 1}})
    with pytest.raises(RecipeError, match=message):
        build_base(base, train_tokenizer(["a b c"] * 3, 300))


def test_missing_text_is_a_corpus_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no file or folder at stories.txt; check .*--data-root"):
        train_base(recipe_of(), tmp_path, tmp_path)


def test_seconds_are_those_of_all_sessions(tmp_path: Path) -> None:
    curve = tmp_path / "curve.jsonl"
    assert seconds_trained(curve) is None
    curve.write_text("".join(json.dumps({"step": 1, **more}) + "\n" for more in ({}, {"loss": 1.0})))
    assert seconds_trained(curve) is None
    records = [{"elapsed": seconds} for seconds in (1.5, 9.0, 2.0, 4.0, 4.0, 0.5)]
    curve.write_text("".join(json.dumps({"step": 1, **more}) + "\n" for more in [{}, *records]))
    assert seconds_trained(curve) == 9.0 + 4.0 + 0.5


def test_warmup_and_decay_share_out_the_steps() -> None:
    recipe = recipe_of(steps=100, warmup_steps=10, decay_share=0.4).autoencoder.train
    arguments = training_arguments(recipe, Path("out"), seed=0, use_cpu=True)
    assert arguments.lr_scheduler_kwargs == {"num_decay_steps": 40, "num_stable_steps": 50, "decay_type": "linear"}
    assert arguments.save_total_limit == 2


def test_a_compiled_base_does_not_compile_what_comes_after(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    train_base(recipe_of(steps=1, compile="on"), tmp_path, data)
    assert compiled == ["LlamaForCausalLM"]
    assert "ACCELERATE_DYNAMO_BACKEND" not in os.environ
    on, off = (recipe_of(compile=value).autoencoder.train for value in ("on", "off"))
    assert compiles(on) and not compiles(off)


def test_records_stand_above_the_bar_and_not_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm.auto import tqdm

    bar, state = Bar(), TrainerState(global_step=3, max_steps=9)
    with tqdm(total=9) as drawn:
        bar.training_bar = drawn
        bar.on_log(None, state, None, {"loss": 0.25, "note": "left out"})
    shown = capsys.readouterr()
    assert "step 3 of 9: loss 0.25\n" in shown.err and shown.out == ""


# The autoencoder stage ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latent_run(base_run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latent")
    train_autoencoder(recipe_of(), out, data, base_run / "base" / "model")
    return out


def test_a_latent_model_is_trained_and_loads(latent_run: Path, base_run: Path) -> None:
    model = LatentModel.from_pretrained(latent_run / "autoencoder" / "model", device="cpu")
    assert model.latent_config.name == "tiny"
    assert (model.latent_config.span_tokens, model.latent_config.z_dim, model.latent_config.soft_tokens) == (8, 6, 2)
    done = json.loads((latent_run / "autoencoder" / "done.json").read_text())
    assert model.latent_config.latent_norm == done["eval_latent_norm"] > 0
    assert {f"eval_{kind}_{arm}" for kind in ("nll", "alone") for arm in ("own", "null", "wrong")} < set(done)
    moved = {
        name
        for name, tensor in weights(latent_run / "autoencoder" / "model").items()
        if "lora_B" in name and tensor.any()
    }
    assert any(name.startswith("encoder") for name in moved)
    assert any(name.startswith("router") for name in moved)
    records = [json.loads(line) for line in (latent_run / "autoencoder" / "curve.jsonl").read_text().splitlines()]
    evaluated = [record["step"] for record in records if "eval_nll_own" in record]
    assert evaluated and len(evaluated) == len(set(evaluated))  # also at the end, once a step
    base: dict[str, torch.Tensor] = dict(model.bare_copy().state_dict())
    for name, tensor in AutoModelForCausalLM.from_pretrained(base_run / "base" / "model").state_dict().items():
        assert torch.equal(base[name], tensor), name


def test_a_latent_model_that_is_done_is_not_trained_again(
    latent_run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder_stage, "fresh_model", None)
    folder = train_autoencoder(recipe_of(), latent_run, data, "no base is needed")
    assert folder == latent_run / "autoencoder" / "model"


@pytest.mark.parametrize("step", [1, 3])
def test_an_interrupted_latent_model_resumes_to_the_same_weights(
    latent_run: Path, base_run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    base = base_run / "base" / "model"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(patch, LatentTrainer, step)
        train_autoencoder(recipe_of(), tmp_path, data, base)
    assert not is_done(tmp_path / "autoencoder")
    train_autoencoder(recipe_of(), tmp_path, data, base)
    assert_same_weights(latent_run / "autoencoder" / "model", tmp_path / "autoencoder" / "model")


def test_gradient_accumulation_and_bfloat16_run(base_run: Path, data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(steps=2, gradient_accumulation_steps=2, bf16=True)
    train_autoencoder(recipe, tmp_path, data, base_run / "base" / "model")
    done = json.loads((tmp_path / "autoencoder" / "done.json").read_text())
    assert 4 < done["eval_nll_own"] < 8


def test_a_pretrained_base_of_another_kind_works(tiny_llama: Path, data: Path, tmp_path: Path) -> None:
    folder = train_autoencoder(recipe_of(steps=2, pretrained=str(tiny_llama)), tmp_path, data, tiny_llama)
    assert LatentModel.from_pretrained(folder).encode("dogs").shape == (1, 6)
