"""The reach head: probabilities by hand, what fits, and its place in a model folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steer.errors import CheckpointError, LatentError
from steer.heads.reach import ReachConfig, ReachHead
from steer.models import checkpoint
from steer.models.checkpoint import REACH
from steer.models.config import LatentConfig
from steer.models.latent_model import LatentModel
from tests.steer.tiny import Z_DIM, tiny_model


def head_of(encoder_id: str = "e", *, seed: int = 0, **fields: object) -> ReachHead:
    torch.manual_seed(seed)
    config = ReachConfig.model_validate({"encoder_id": encoder_id, "z_dim": Z_DIM, "width": 8, **fields})
    head = ReachHead(config).eval()
    head.mean.normal_()
    return head.requires_grad_(False)


def say(head: ReachHead, chances: list[float]) -> ReachHead:
    """Let a head answer these probabilities to whatever it is asked."""
    last = head.mlp[-1]
    last.weight.zero_()  # type: ignore[operator,union-attr]
    last.bias.copy_(torch.tensor(chances).log())  # type: ignore[operator,union-attr]
    return head


@pytest.fixture
def latents() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, Z_DIM, generator=generator), torch.randn(5, Z_DIM, generator=generator)


def test_within_and_distance_by_hand(latents: tuple[Tensor, Tensor]) -> None:
    # Here, 1, 2-3, 4 and more (5.5 on average), unreachable.
    head = say(head_of(buckets=[0, 1, 2, 4], tail=5.5), [0.1, 0.2, 0.2, 0.4, 0.1])
    state, terminal = latents
    within = [float(head.within(state[:1], terminal[:1], n)) for n in (0, 1, 2, 3, 4, 5, 1000)]
    # The mean of a geometric distribution from 1 on is 2.5, so each span tells two fifths of what is left.
    assert within == pytest.approx([0.1, 0.3, 0.4, 0.5, 0.66, 0.756, 0.9], abs=1e-4)
    assert head.within(state, terminal, [0, 1, 2, 3, 4]).tolist() == pytest.approx(within[:5])
    assert torch.equal(head.within(state, terminal, torch.arange(5)), head.within(state, terminal, [0, 1, 2, 3, 4]))
    wanted = (0.2 * 1 + 0.2 * 2.5 + 0.4 * 5.5) / 0.9
    assert head.distance(state, terminal).tolist() == pytest.approx([wanted] * 5)


def test_laws(latents: tuple[Tensor, Tensor]) -> None:
    state, terminal = latents
    head = head_of()
    chances = head.probabilities(state, terminal)
    assert chances.shape == (5, 9) and torch.allclose(chances.sum(1), torch.ones(5))
    steps = torch.stack([head.within(state, terminal, n) for n in range(40)])
    assert (steps.diff(dim=0) >= 0).all() and (steps[-1] <= 1 - chances[:, -1] + 1e-6).all()
    one = head.probabilities(state, terminal[:1])
    assert torch.allclose(one, head.probabilities(state, terminal[:1].repeat(5, 1)))
    assert not torch.allclose(chances, head.probabilities(terminal, state))  # time has a direction
    rows = [head.probabilities(state[i : i + 1], terminal[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(torch.cat(rows), chances, atol=1e-6, rtol=0)
    assert head.within(state[:0], terminal[:0], 3).shape == (0,)


def test_a_temperature_flattens(latents: tuple[Tensor, Tensor]) -> None:
    cool, warm = head_of(), head_of(temperature=1000.0)
    assert float(warm.probabilities(*latents).std()) < 0.1 * float(cool.probabilities(*latents).std())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t: (s[:, :3], t, 1), r"latents of states have shape \(5, 3\), expected \[n, 6\]"),
        (lambda s, t: (s, t[0], 1), r"latents of terminals have shape \(6,\)"),
        (lambda s, t: (s, t[:2], 1), "2 terminals for 5 states"),
        (lambda s, t: (s * float("nan"), t, 1), "latents of states hold NaN"),
        (lambda s, t: (s, t / 0, 1), "latents of terminals hold NaN or infinity"),
        (lambda s, t: (s, t, -1), "must be 0 or more, got -1"),
        (lambda s, t: (s, t, [1, 2]), r"spans has shape \(2,\), expected one number or \[5\]"),
    ],
)
def test_what_does_not_fit(latents: tuple[Tensor, Tensor], change: Callable[..., tuple], message: str) -> None:
    with pytest.raises(LatentError, match=message):
        head_of().within(*change(*latents))


@pytest.mark.parametrize(
    "fields", [{"buckets": [1, 2]}, {"buckets": [0]}, {"buckets": [0, 2, 2]}, {"other_share": 0.9}, {"temperature": 0}]
)
def test_configurations_that_make_no_sense(fields: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        ReachConfig.model_validate({"encoder_id": "e", "z_dim": 6, **fields})


# In a model folder ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_model(tiny_llama)
    model.reach = head_of(model.latent_config.encoder_id)
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "steer_config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_head_travels_with_its_model(saved: Path, tmp_path: Path, latents: tuple[Tensor, Tensor]) -> None:
    loaded = LatentModel.from_pretrained(saved)
    assert loaded.reach is not None and not any(p.requires_grad for p in loaded.parameters())
    wanted = head_of().within(*latents, 3)
    assert torch.equal(loaded.reach.within(*latents, 3), wanted)
    assert loaded.reach.config.encoder_id == loaded.latent_config.encoder_id
    assert REACH in loaded.latent_config.files
    # In another dtype the encoder's files have another hash, but the encoder is the same.
    checkpoint.save(loaded, tmp_path / "half", dtype=torch.float16)
    again = LatentModel.from_pretrained(tmp_path / "half")
    assert again.latent_config.encoder_id != loaded.latent_config.encoder_id
    assert again.reach is not None
    torch.testing.assert_close(again.reach.within(*latents, 3), wanted, atol=5e-3, rtol=0)


def test_a_model_without_one_has_none(tiny_llama: Path, tmp_path: Path) -> None:
    tiny_model(tiny_llama).save_pretrained(tmp_path)
    assert LatentModel.from_pretrained(tmp_path).reach is None
    assert LatentConfig.load(tmp_path).reach is None and not (tmp_path / REACH).exists()


def test_a_head_of_another_encoder_is_refused(tiny_llama: Path, copied: Path, tmp_path: Path) -> None:
    message = "reads latents of encoder 'other', the model's is '.*train one for this model"
    model = tiny_model(tiny_llama)
    model.reach = head_of("other")
    with pytest.raises(CheckpointError, match=message):
        model.save_pretrained(tmp_path / "x")
    edit(copied, lambda data: data["reach"].update(encoder_id="other"))
    with pytest.raises(CheckpointError, match=message):
        LatentModel.from_pretrained(copied)


def test_damage_is_named(copied: Path) -> None:
    path = copied / REACH
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match=r"reach.safetensors was changed or is truncated"):
        LatentModel.from_pretrained(copied)
    with pytest.raises(CheckpointError, match="reach.safetensors is truncated or damaged"):
        LatentModel.from_pretrained(copied, verify=False)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"reach.safetensors is missing"):
        LatentModel.from_pretrained(copied)
    path.write_bytes(whole)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file({**tensors, "mean": tensors["mean"] / 0}, path)
    with pytest.raises(CheckpointError, match="mean holds NaN or infinity"):
        LatentModel.from_pretrained(copied, verify=False)
    save_file({**tensors, "mean": tensors["mean"][:3].clone()}, path)
    with pytest.raises(CheckpointError, match=r"mean has shape \(3,\), expected \(6,\)"):
        LatentModel.from_pretrained(copied, verify=False)
    edit(copied, lambda data: data["reach"].update(temperature=-1))
    with pytest.raises(CheckpointError, match="reach.temperature"):
        LatentModel.from_pretrained(copied, verify=False)
