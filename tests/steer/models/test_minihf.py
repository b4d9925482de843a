"""MiniHF checkpoints against an oracle that shares no code, and against recorded numbers of the reference code."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steer.errors import CheckpointError, ModelNotFound
from steer.latents.bigvae import annealed_blends
from steer.models.latent_model import LatentModel
from steer.models.minihf import decoder_logits
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import open_writer
from tests.steer.minihf_oracle import MiniHFOracle, make_minihf_folder
from tests.steer.tiny import assert_near

LENGTH = 24
GREEDY = SamplingConfig(temperature=0)


def decoder_greedy(model: LatentModel, z: Tensor, context: Tensor, n: int = LENGTH) -> list[list[int]]:
    """The context and the n likeliest tokens after it, each from a whole pass."""
    written = context[:, :0]
    for _ in range(n):
        logits = decoder_logits(model, z, context, written)[:, -1]
        written = torch.cat([written, logits.argmax(-1, keepdim=True)], dim=1)
    return torch.cat([context, written], dim=1).tolist()


def router_greedy(model: LatentModel, z: Tensor, context: Tensor, scale: float | None = None) -> list[list[int]]:
    """The context and the next span, greedily."""
    contexts = context.tolist()
    writer = open_writer(
        model, contexts, seeds=[0] * len(contexts), spans=1, sampling=GREEDY, with_null=scale is not None
    )
    writer.end = None  # the reference code never stops early
    spans = writer.write(z, guidance_scale=scale)
    return [[*row, *span.ids] for row, span in zip(contexts, spans, strict=True)]


# A folder made here ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mistral", "llama"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_minihf_folder(tmp_path_factory.mktemp(request.param), seed=7, family=request.param)


@pytest.fixture(scope="module")
def oracle(folders: tuple[Path, Path]) -> MiniHFOracle:
    return MiniHFOracle.load(*folders)


@pytest.fixture(scope="module", params=[True, False], ids=["fused", "adapters"])
def model(request: pytest.FixtureRequest, folders: tuple[Path, Path]) -> LatentModel:
    return LatentModel.from_minihf(folders[1], folders[0], span_tokens=LENGTH, device="cpu", fuse=request.param)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, 259, (2, 21), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def z() -> Tensor:
    return torch.randn(2, 16, generator=torch.Generator().manual_seed(4))


def test_latents_agree_with_the_oracle(model: LatentModel, oracle: MiniHFOracle, ids: Tensor) -> None:
    full = torch.ones_like(ids)
    mask = full.clone()
    mask[1, :4] = 0
    for kept in (full, mask):
        assert_near(model.encode_tokens(ids, kept), oracle.encode(ids, kept))
    rows = [ids[0].tolist(), ids[1, :5].tolist(), [9]]
    wanted = [oracle.encode(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)) for row in rows]
    assert_near(model.encode_ids(rows), torch.cat(wanted))


def test_texts_are_encoded_without_special_tokens_or_added_space(model: LatentModel, oracle: MiniHFOracle) -> None:
    text = "He ran - home."
    ids = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    assert ids.shape[1] == len(text)
    assert_near(model.encode(text), oracle.encode(ids, torch.ones_like(ids)))


def test_logits_agree_with_the_oracle(model: LatentModel, oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    for split in (9, 1, 0):
        context, target = ids[:, :split], ids[:, split:]
        assert_near(decoder_logits(model, z, context, target), oracle.decoder_logits(z, context, target))
        assert_near(model.router_logits(context, z, target), oracle.router_logits(context, z, target))


def test_greedy_text_is_that_of_the_oracle(model: LatentModel, oracle: MiniHFOracle, ids: Tensor, z: Tensor) -> None:
    context = ids[:, :9]
    assert decoder_greedy(model, z, context) == oracle.greedy("decoder", context, z).tolist()
    assert router_greedy(model, z, context) == oracle.greedy("router", context, z).tolist()
    assert router_greedy(model, z, context, 1.5) == oracle.greedy("router", context, z, guidance_scale=1.5).tolist()


def test_several_spans_are_those_of_the_oracle_span_by_span(
    folders: tuple[Path, Path], oracle: MiniHFOracle, ids: Tensor
) -> None:
    model = LatentModel.from_minihf(folders[1], folders[0], span_tokens=6, device="cpu")
    zs = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(5))
    visible = ids[:, :5]
    writer = open_writer(model, visible.tolist(), seeds=[0, 0], spans=3, sampling=GREEDY, with_null=True)
    writer.end = None
    for z in zs:
        writer.write(z, guidance_scale=1.5)
        visible = oracle.greedy("router", visible, z, n=6, guidance_scale=1.5)
    assert [writer.ids(row) for row in range(2)] == visible[:, 5:].tolist()


def test_the_first_training_stage_routes_with_its_decoder(tmp_path: Path, ids: Tensor, z: Tensor) -> None:
    base, folder = make_minihf_folder(tmp_path, seed=7, stage=1)
    model = LatentModel.from_minihf(folder, base, span_tokens=LENGTH, device="cpu")
    oracle = MiniHFOracle.load(base, folder)
    context, target = ids[:, :9], ids[:, 9:]
    assert_near(model.router_logits(context, z, target), oracle.router_logits(context, z, target))
    assert_near(decoder_logits(model, z, context, target), oracle.decoder_logits(z, context, target))
    assert router_greedy(model, z, context) == oracle.greedy("router", context, z).tolist()


def test_the_settings_are_those_of_bigvae(folders: tuple[Path, Path]) -> None:
    config = LatentModel.from_minihf(folders[1], folders[0], device="cpu").latent_config
    assert (config.layout, config.span_tokens, config.z_dim, config.soft_tokens) == ("minihf", 64, 16, 1)
    assert (config.prefix_space, config.max_context) == (False, 1920)


def test_the_encoder_identity_follows_its_weights(tmp_path: Path) -> None:
    names = []
    for seed in (7, 7, 8):
        base, folder = make_minihf_folder(tmp_path / str(len(names)), seed=seed)
        names.append(LatentModel.from_minihf(folder, base, device="cpu").latent_config.encoder_id)
    assert names[0] == names[1] != names[2]


def test_the_base_may_be_named_by_the_adapters(tmp_path: Path) -> None:
    base, folder = make_minihf_folder(tmp_path, seed=7)
    with pytest.raises(CheckpointError, match="does not name its base model; pass base=FOLDER_OR_ID"):
        LatentModel.from_minihf(folder)
    path = folder / "encoder" / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    assert LatentModel.from_minihf(folder, device="cpu").latent_config.base.name == str(base)
    path.write_text(json.dumps({**settings, "base_model_name_or_path": "nobody/nothing"}))
    with pytest.raises(ModelNotFound, match="nobody/nothing"):
        LatentModel.from_minihf(folder, local_files_only=True)


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_folder_without_a_part_is_refused(tmp_path: Path, part: str) -> None:
    base, folder = make_minihf_folder(tmp_path, seed=7)
    shutil.rmtree(folder / part)
    with pytest.raises(CheckpointError, match=f"has no {part}/adapter_model.safetensors"):
        LatentModel.from_minihf(folder, base)


@pytest.mark.parametrize(
    "file", ["vae.safetensors", *(f"{r}/adapter_model.safetensors" for r in ("encoder", "router"))]
)
def test_truncated_files_are_named(tmp_path: Path, file: str) -> None:
    base, folder = make_minihf_folder(tmp_path, seed=7)
    (folder / file).write_bytes((folder / file).read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=f"{file} is truncated or damaged"):
        LatentModel.from_minihf(folder, base)


def test_heads_that_do_not_fit_or_hold_nan_are_refused(tmp_path: Path) -> None:
    base, folder = make_minihf_folder(tmp_path, seed=7)
    good = load_file(folder / "vae.safetensors")
    for name, change, message in (
        ("w_d.weight", good["w_d.weight"][:-1].clone(), r"w_d.weight has shape \(47, 16\), expected \(48, 16\)"),
        ("w_e.bias", good["w_e.bias"] * float("nan"), "w_e.bias holds NaN or infinity"),
        ("extra", torch.zeros(1), "extra has shape"),
    ):
        save_file({**good, name: change}, folder / "vae.safetensors")
        with pytest.raises(CheckpointError, match=message):
            LatentModel.from_minihf(folder, base)
    save_file({"f.bias": good["f.bias"]}, folder / "vae.safetensors")
    with pytest.raises(CheckpointError, match="has no w_e.weight; found"):
        LatentModel.from_minihf(folder, base)


def test_adapters_of_another_family_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    _, folder = make_minihf_folder(tmp_path, seed=7)
    with pytest.raises(CheckpointError, match="expected|does not fit"):
        LatentModel.from_minihf(folder, tiny_llama)


@pytest.mark.parametrize("part", ["encoder", "router"])
def test_adapters_whose_tensors_have_other_names_are_refused(tmp_path: Path, part: str) -> None:
    base, folder = make_minihf_folder(tmp_path, seed=7)
    path = folder / part / "adapter_model.safetensors"
    save_file({name.replace("layers.1", "h.1"): tensor for name, tensor in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match=part):
        LatentModel.from_minihf(folder, base)


# Recorded numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [True, False])
def test_the_recorded_numbers_of_the_reference_code(recorded: Path, fuse: bool) -> None:
    expected = load_file(recorded / "expected.safetensors")
    texts = json.loads((recorded / "texts.json").read_text())["texts"]
    model = LatentModel.from_minihf(
        recorded / "checkpoint", recorded / "base", span_tokens=LENGTH, dtype="float32", device="cpu", fuse=fuse
    )
    z = expected["z"]
    assert_near(model.encode_tokens(expected["input_ids"], expected["attention_mask"]), z)
    assert_near(model.encode_ids([model.to_ids(text) for text in texts]), z)
    context, target, first = expected["context_ids"], expected["target_ids"], z[:1]
    assert_near(decoder_logits(model, first, context, target), expected["decoder_logits"])
    assert_near(model.router_logits(context, first, target), expected["router_logits"])
    assert decoder_greedy(model, first, context) == expected["decoder_greedy"].tolist()
    assert router_greedy(model, first, context) == expected["router_greedy"].tolist()
    assert router_greedy(model, first, context, 1.5) == expected["router_cfg_greedy_1.5"].tolist()
    assert_near(annealed_blends(z[0], z[2], len(expected["annealed_blends"])), expected["annealed_blends"])
