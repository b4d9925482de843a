"""Model folders: round trips, and what is said of folders that are damaged, foreign or not there."""

import json
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from steer.errors import BaseMismatch, CheckpointError, ModelNotFound
from steer.files import file_hash
from steer.models import checkpoint
from steer.models.adapters import ENCODER, ROUTER
from steer.models.build import fresh_model
from steer.models.config import BaseIdentity, LatentConfig
from steer.models.latent_model import LatentModel
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import assert_near, tiny_model

TEXTS = ["a", "the cat", "dogs"]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama, name="tiny")


@pytest.fixture(scope="module")
def saved(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(folder: Path, **fields: object) -> None:
    path = folder / "steer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def rehash(folder: Path) -> None:
    """Record the weight files as they now are, so that what is inside them is what a test is about."""
    files = json.loads((folder / "steer_config.json").read_text())["files"]
    edit(folder, files={name: file_hash(folder / name) for name in files})


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change({name: tensor.clone() for name, tensor in load_file(path).items()}), path)


# Round trips ----------------------------------------------------------------------------------------------------------


def test_a_saved_model_loads_to_equal_latents_and_logits(model: LatentModel, saved: Path) -> None:
    loaded = LatentModel.from_pretrained(saved, device="cpu")
    assert torch.equal(loaded.encode(TEXTS), model.encode(TEXTS))
    ids, z = torch.tensor([[1, 2, 3]]), torch.ones(1, 6)
    for latent in (z, None):
        assert torch.equal(loaded.router_logits(ids, latent, ids), model.router_logits(ids, latent, ids))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.latent_config.encoder_id.startswith("tiny:")
    kept = {"files", "encoder_id"}
    assert loaded.latent_config.model_dump(exclude=kept) == model.latent_config.model_dump(exclude=kept)


def test_whoever_may_read_the_settings_may_read_the_weights(saved: Path) -> None:
    modes = {stat.S_IMODE(file.stat().st_mode) for file in saved.rglob("*") if file.is_file()}
    assert modes == {stat.S_IMODE((saved / "steer_config.json").stat().st_mode)}


def test_saving_twice_gives_the_same_weights_and_identity(saved: Path, tmp_path: Path) -> None:
    loaded = LatentModel.from_pretrained(str(saved), device="cpu")
    loaded.save_pretrained(tmp_path / "again")
    first, second = LatentConfig.load(saved), LatentConfig.load(tmp_path / "again")
    assert first.files == second.files
    assert first.encoder_id == second.encoder_id
    again = LatentModel.from_pretrained(tmp_path / "again", device="cpu")
    assert torch.equal(again.encode(TEXTS), loaded.encode(TEXTS))


def test_saving_changes_nothing_in_the_model(tiny_llama: Path, tmp_path: Path) -> None:
    model = tiny_model(tiny_llama)
    before, config = model.encode(TEXTS), model.latent_config
    checkpoint.save(model, tmp_path / "half", dtype=torch.float16, with_base=True)
    assert model.dtype == torch.float32
    assert model.latent_config is config
    assert not any(c.inference_mode for c in model.peft.peft_config.values())
    model.invalidate()
    assert torch.equal(model.encode(TEXTS), before)


def test_a_half_precision_package_holds_its_base_and_is_close(model: LatentModel, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    checkpoint.save(model, folder, dtype=torch.float16, with_base=True)
    for file in LatentConfig.load(folder).files:
        assert {tensor.dtype for tensor in load_file(folder / file).values()} == {torch.float16}
    moved = folder.rename(tmp_path / "moved")
    loaded = LatentModel.from_pretrained(moved, device="cpu")
    assert loaded.dtype == torch.float32
    assert_near(loaded.encode(TEXTS), model.encode(TEXTS), atol=0.05)
    assert loaded.latent_config.base.name == "base"
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(LatentModel.from_pretrained(tmp_path / "again").encode(TEXTS), loaded.encode(TEXTS))


def test_a_package_names_no_folder_of_the_machine_it_was_made_on(
    model: LatentModel, tiny_llama: Path, tmp_path: Path
) -> None:
    checkpoint.save(model, tmp_path / "package", with_base=True)
    for path in (tmp_path / "package").rglob("*"):
        if path.is_file():
            assert str(tiny_llama).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_loads_in_half_precision(model: LatentModel, saved: Path, dtype: str) -> None:
    loaded = LatentModel.from_pretrained(saved, dtype=dtype, device="cpu")
    assert {p.dtype for p in loaded.peft.parameters()} == {getattr(torch, dtype)}
    cosine = torch.nn.functional.cosine_similarity(loaded.encode(TEXTS), model.encode(TEXTS))
    assert cosine.min() > 0.99


def test_the_base_may_be_elsewhere(copied: Path, tiny_llama: Path, tmp_path: Path, model: LatentModel) -> None:
    place = Path(shutil.copytree(tiny_llama, tmp_path / "elsewhere"))
    edit(copied, base={**json.loads((copied / "steer_config.json").read_text())["base"], "name": "/gone/base"})
    with pytest.raises(ModelNotFound, match="/gone/base"):
        LatentModel.from_pretrained(copied)
    assert torch.equal(LatentModel.from_pretrained(copied, base=place).encode(TEXTS), model.encode(TEXTS))


def test_fusing_is_a_choice_at_loading(saved: Path, model: LatentModel) -> None:
    loaded = LatentModel.from_pretrained(saved, fuse=False)
    assert loaded.fuse is False
    assert_near(loaded.encode(TEXTS), model.encode(TEXTS), atol=1e-5)


def test_a_minihf_model_saved_in_our_format_keeps_all_roles(tmp_path: Path) -> None:
    from steer.models.minihf import decoder_logits

    base, folder = make_minihf_folder(tmp_path, seed=7)
    first = LatentModel.from_minihf(folder, base, device="cpu")
    first.save_pretrained(tmp_path / "ours")
    second = LatentModel.from_pretrained(tmp_path / "ours", device="cpu")
    ids, z = torch.tensor([[70, 71, 72]]), first.encode("cat")
    assert second.latent_config.layout == "minihf"
    assert torch.equal(second.encode("cat"), z)
    assert torch.equal(second.router_logits(ids, z, ids), first.router_logits(ids, z, ids))
    assert torch.equal(decoder_logits(second, z, ids, ids), decoder_logits(first, z, ids, ids))


# Damage ---------------------------------------------------------------------------------------------------------------

WEIGHTS = ["encoder/adapter_model.safetensors", "router/adapter_model.safetensors", "heads.safetensors"]


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_flipped_byte_is_found_by_its_hash(copied: Path, file: str) -> None:
    data = bytearray((copied / file).read_bytes())
    data[-5] ^= 1
    (copied / file).write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=rf"{file} was changed or is truncated: SHA-256 \w{{12}}"):
        LatentModel.from_pretrained(copied)
    LatentModel.from_pretrained(copied, verify=False)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("file", WEIGHTS)
def test_a_truncated_file_is_named(copied: Path, file: str, verify: bool) -> None:
    (copied / file).write_bytes((copied / file).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=rf"{file} (was changed or is truncated|is truncated or damaged)"):
        LatentModel.from_pretrained(copied, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("file", WEIGHTS)
def test_a_missing_file_is_named(copied: Path, file: str, verify: bool) -> None:
    (copied / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file} is missing; the checkpoint is incomplete"):
        LatentModel.from_pretrained(copied, verify=verify)


def test_a_missing_adapter_configuration_is_an_error(copied: Path) -> None:
    (copied / "router" / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="router"):
        LatentModel.from_pretrained(copied)


@pytest.mark.parametrize("file", WEIGHTS)
def test_nan_in_weights_is_found(copied: Path, file: str) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        next(iter(tensors.values())).view(-1)[0] = float("nan")
        return tensors

    rewrite(copied / file, poison)
    rehash(copied)
    with pytest.raises(CheckpointError, match=f"{file}.*hold.? NaN or infinity"):
        LatentModel.from_pretrained(copied)


def test_heads_of_another_shape_or_name_are_refused(copied: Path) -> None:
    rewrite(copied / "heads.safetensors", lambda t: {**t, "w_e.bias": torch.zeros(7)})
    with pytest.raises(CheckpointError, match=r"w_e.bias has shape \(7,\), expected \(6,\) \(1 tensors differ\)"):
        LatentModel.from_pretrained(copied, verify=False)
    rewrite(copied / "heads.safetensors", lambda t: {("x" if k == "f.bias" else k): v for k, v in t.items()})
    with pytest.raises(CheckpointError, match=r"f.bias has shape None, expected \(1,\)"):
        LatentModel.from_pretrained(copied, verify=False)


@pytest.mark.parametrize("role", [ENCODER, ROUTER])
def test_adapters_of_another_rank_are_refused(copied: Path, tiny_llama: Path, tmp_path: Path, role: str) -> None:
    tiny_model(tiny_llama, rank=8).save_pretrained(tmp_path / "other")
    other = tmp_path / "other" / role / "adapter_model.safetensors"
    shutil.copy(other, copied / role / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=f"the adapter in .*{role} does not fit this base"):
        LatentModel.from_pretrained(copied, verify=False)


@pytest.mark.parametrize("role", [ENCODER, ROUTER])
@pytest.mark.parametrize("change", ["renamed", "dropped", "added"])
def test_adapters_with_other_tensors_are_refused(copied: Path, role: str, change: str) -> None:
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    other = name.replace("layers.1", "blocks.1")

    def alter(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if change != "dropped":
            tensors[other] = tensors[name].clone()
        if change != "added":
            del tensors[name]
        return tensors

    rewrite(copied / role / "adapter_model.safetensors", alter)
    with pytest.raises(CheckpointError, match=rf"{role}.*(up_proj|\d+ tensors)"):
        LatentModel.from_pretrained(copied, verify=False)


# Configuration --------------------------------------------------------------------------------------------------------


def test_a_newer_format_asks_for_an_upgrade_whatever_else_is_new(copied: Path) -> None:
    edit(copied, format_version=2)
    with pytest.raises(CheckpointError, match="has format 2; this version reads up to 1: upgrade steer"):
        LatentModel.from_pretrained(copied)
    edit(copied, diffusion_steps=4)
    with pytest.raises(CheckpointError, match="has format 2; this version reads up to 1: upgrade steer"):
        LatentModel.from_pretrained(copied)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is damaged"),
        (b"", "is damaged"),
        (b"[]", "is damaged"),
        (b"\xff\xfe{", "is damaged"),
        (b'{"span_tokens": 0}', "span_tokens"),
        (b'{"layout": "other"}', "layout"),
        (b'{"format_version": "one"}', "format_version"),
    ],
)
def test_a_damaged_configuration_is_named(copied: Path, content: bytes, message: str) -> None:
    (copied / "steer_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"steer_config.json.*{message}"):
        LatentModel.from_pretrained(copied)


def test_an_unknown_field_is_named(copied: Path) -> None:
    edit(copied, spam=1)
    with pytest.raises(CheckpointError, match="steer_config.json is damaged or of another version: spam"):
        LatentModel.from_pretrained(copied)


# Other bases and other folders ----------------------------------------------------------------------------------------


def test_a_base_of_the_same_shape_with_other_weights_is_refused(copied: Path, tiny_llama: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    rewrite(other / "model.safetensors", lambda t: {k: torch.randn_like(v) * 0.02 for k, v in t.items()})
    with pytest.raises(BaseMismatch, match="has the shape of .* but other weights"):
        LatentModel.from_pretrained(copied, base=other)


def test_a_base_of_another_shape_is_refused_with_the_field(copied: Path, tiny_llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    model.resize_token_embeddings(300)
    model.save_pretrained(other)
    with pytest.raises(BaseMismatch, match="base with vocab_size 258 .*; got 300"):
        LatentModel.from_pretrained(copied, base=other)


def test_a_base_in_another_dtype_is_the_same_base(tiny_llama: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama)
    identity = BaseIdentity.of(model, "x")
    for dtype in (torch.bfloat16, torch.float16):
        identity.check(BaseIdentity.of(model.to(dtype=dtype), "y"))
        BaseIdentity.of(model, "y").check(identity)


@pytest.mark.parametrize(
    "name", ["nobody/nothing", "nothing", "./nothing", "/nowhere/nothing", "~/nothing", "a/b/nothing", "no thing"]
)
@pytest.mark.parametrize("local", [True, False])
def test_a_model_that_is_nowhere_is_named(name: str, local: bool) -> None:
    with pytest.raises(ModelNotFound, match=re.escape(name)):
        LatentModel.from_pretrained(name, local_files_only=local)
    with pytest.raises(OSError, match=re.escape(Path(name).name)):
        LatentModel.from_pretrained(Path(name), local_files_only=local)


@pytest.mark.parametrize("relative", [False, True])
def test_a_base_that_has_moved_is_said_to_be_the_base_of_its_model(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "bases" / "qwen"
    recorded = json.loads((copied / "steer_config.json").read_text())["base"]
    edit(copied, base={**recorded, "name": "./bases/qwen" if relative else str(gone)})
    with pytest.raises(ModelNotFound) as caught:
        LatentModel.from_pretrained(copied)
    assert str(caught.value) == (
        f"the base of the model in {copied} is missing: expected at {gone}, no such folder; if it has moved, move it "
        f"back, or load the model with LatentModel.from_pretrained({str(copied)!r}, base=...)"
    )


def test_a_base_that_the_hub_does_not_give_is_said_to_be_the_base_of_its_model(copied: Path) -> None:
    recorded = json.loads((copied / "steer_config.json").read_text())["base"]
    edit(copied, base={**recorded, "name": "nobody/nothing"})
    message = f"the base of the model in {copied} is missing or does not load: "
    with pytest.raises(ModelNotFound, match=re.escape(message) + r".*'nobody/nothing'.*, base=\.\.\.\)$"):
        LatentModel.from_pretrained(copied, local_files_only=True)


def test_a_base_that_was_asked_for_or_that_is_there_is_named_itself(
    copied: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ModelNotFound, match="^cannot load a causal language model from '/nowhere/qwen': no such folder"
    ):
        LatentModel.from_pretrained(copied, base="/nowhere/qwen")
    there = Path(shutil.copytree(tiny_llama, tmp_path / "qwen"))
    (there / "tokenizer.json").unlink()
    recorded = json.loads((copied / "steer_config.json").read_text())["base"]
    edit(copied, base={**recorded, "name": str(there)})
    with pytest.raises(ModelNotFound, match="^the base in .*qwen' has no tokenizer"):
        LatentModel.from_pretrained(copied)


def test_a_folder_above_models_names_them(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = Path(shutil.copytree(saved, run / "package" / "first"))
    for folder in (run, run / "package"):
        with pytest.raises(CheckpointError, match=rf"no steer model; did you mean {re.escape(str(first))}\?$"):
            LatentModel.from_pretrained(folder)
    second = Path(shutil.copytree(saved, run / "package" / "second"))
    with pytest.raises(CheckpointError, match=re.escape(f"did you mean {first} or {second}?")):
        LatentModel.from_pretrained(run)


def test_a_plain_base_is_told_how_it_becomes_a_latent_model(tiny_llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "my base"))
    with pytest.raises(CheckpointError) as caught:
        LatentModel.from_pretrained(folder)
    assert f"`steer train autoencoder --base '{folder}' --data FILE --out RUN` makes a steer model of it" in str(
        caught.value
    )


def test_a_plain_base_is_no_latent_model(tiny_llama: Path, tmp_path: Path) -> None:
    for folder in (tiny_llama, tmp_path):
        with pytest.raises(CheckpointError, match="has no steer_config.json: it is no steer model"):
            LatentModel.from_pretrained(folder)
        with pytest.raises(CheckpointError, match="has no vae.safetensors: it is no MiniHF checkpoint"):
            LatentModel.from_minihf(folder, tiny_llama)


def test_the_two_kinds_of_folder_name_each_other(saved: Path, tmp_path: Path) -> None:
    base, folder = make_minihf_folder(tmp_path, seed=7)
    with pytest.raises(CheckpointError, match=r"a MiniHF folder\? use LatentModel.from_minihf"):
        LatentModel.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"a steer model\? use LatentModel.from_pretrained"):
        LatentModel.from_minihf(saved, base)


def test_a_folder_beside_weights_of_the_base_may_hold_a_config_json(copied: Path, tiny_llama: Path) -> None:
    shutil.copy(tiny_llama / "config.json", copied / "config.json")
    assert LatentModel.from_pretrained(copied).span_tokens == 8


def test_an_untrained_model_is_not_taken_for_a_trained_one(tiny_llama: Path) -> None:
    assert fresh_model(tiny_llama, rank=2, device="cpu").latent_config.encoder_id == "latent-model:untrained-0"
