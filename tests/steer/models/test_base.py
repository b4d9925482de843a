"""Loading bases: what comes back, and what is said when nothing can."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from steer.errors import CheckpointError, ModelNotFound, SteerError
from steer.models.base import backbone, load_base, missing_folder, resolve_device, resolve_dtype

CPU = torch.device("cpu")


@pytest.fixture
def copied(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "base"))


def test_dtypes_by_name_and_by_device() -> None:
    assert resolve_dtype(None, CPU) == resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype(None, torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("bfloat16", CPU) == resolve_dtype(torch.bfloat16, CPU) == torch.bfloat16


@pytest.mark.parametrize("name", ["float31", "int8", "nn", torch.int64])
def test_other_dtypes_are_refused(name: str | torch.dtype) -> None:
    with pytest.raises(ValueError, match="no floating-point type; use float32, bfloat16 or float16"):
        resolve_dtype(name, CPU)


def test_the_device_asked_for_is_taken() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device(CPU) == CPU
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_base_comes_frozen_in_evaluation_mode_and_in_the_dtype_asked_for(tiny_llama: Path) -> None:
    model, tokenizer = load_base(tiny_llama, dtype="bfloat16", device="cpu")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.dtype == torch.bfloat16
    assert tokenizer.pad_token_id == 257
    hidden = backbone(model)(torch.tensor([[1, 2, 3]])).last_hidden_state
    assert hidden.shape == (1, 3, 32)


def test_a_tokenizer_without_padding_pads_with_its_end_token(copied: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copied)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(copied)
    assert load_base(copied)[1].pad_token_id == 256


@pytest.mark.parametrize("name", ["nowhere/model", "/nowhere/model", "./nowhere", "nowhere"])
def test_what_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ModelNotFound, match="cannot load a causal language model from .*nowhere"):
        load_base(name, local_files_only=True)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("./nowhere", True),
        ("/nowhere", True),
        ("~/nowhere", True),
        ("../nowhere/model", True),
        ("here/nowhere", False),  # may be a hub id, whatever folders there are
        ("nowhere/deep/model", True),
        ("here", False),
        ("./here", False),
        ("here/model", False),
        ("owner/model", False),
        ("model", False),
    ],
)
def test_a_path_with_no_folder_is_told_from_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, missing: bool
) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert missing_folder(name) == missing


def test_the_hub_is_not_asked_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("asked"))
    for name in ("./nowhere", tmp_path / "nowhere"):
        with pytest.raises(ModelNotFound, match="nowhere': no such folder; expected a folder or a hub id"):
            load_base(name)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_named(copied: Path, file: str) -> None:
    (copied / file).unlink()
    with pytest.raises(ModelNotFound, match="(cannot load a causal language model from|the base in) .*base"):
        load_base(copied)


def test_a_folder_with_a_broken_configuration_is_named(copied: Path) -> None:
    (copied / "config.json").write_text("{")
    with pytest.raises(ModelNotFound, match="base"):
        load_base(copied)


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_truncated_weights_are_said_to_be_so(copied: Path, keep: int) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SteerError, match="base") as caught:
        load_base(copied)
    assert isinstance(caught.value, CheckpointError)
    assert "truncated or damaged" in str(caught.value)
