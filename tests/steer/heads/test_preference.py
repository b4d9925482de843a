"""The preference head: a taste that can be learned, pairs that cannot be read, and its file."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steer.errors import CheckpointError, CorpusError, LatentError
from steer.heads.preference import PreferenceConfig, PreferenceHead, preference_loss
from steer.models.latent_model import LatentModel
from steer.training.heads.preference import Preference, held_out_rows, read_preferences, train_preference
from tests.steer.tiny import Z_DIM, tiny_model


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama, span_tokens=12)


@pytest.fixture(scope="module")
def pairs() -> list[Preference]:
    """Whoever judged likes z."""
    return [Preference(f"zzz {i} zzzz", f"aaa {i} aaaa and a long text") for i in range(60)]


def write(path: Path, *records: object) -> Path:
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0, 8])
def test_a_taste_is_learned(model: LatentModel, pairs: list[Preference], width: int) -> None:
    head, figures = train_preference(model, pairs, width=width, held_out=0.25)
    assert figures["accuracy"] == 1 and figures["pairs"] == 60 and 5 < figures["held_out"] < 25
    assert head.config.accuracy == round(figures["accuracy"], 4)
    assert head.config.encoder_id == model.latent_config.encoder_id
    good, bad = head.score(model.encode(["zz 999 zzz", "aa 999 aaa"])).tolist()
    assert good > bad
    short, again = (train_preference(model, pairs, width=width, held_out=0.25, steps=20)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(short.parameters(), again.parameters(), strict=True))


def test_the_loss_by_hand() -> None:
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0])
    assert float(preference_loss(chosen, rejected, center=0)) == pytest.approx((0.126928 + 0.693147) / 2, abs=1e-5)
    assert float(preference_loss(chosen, rejected, center=0.5)) == pytest.approx(0.410038 + 0.5 * 2, abs=1e-5)


def test_pairs_of_a_context_are_held_out_together() -> None:
    pairs = [Preference(f"a{i}", f"b{i}", f"context {i % 20}") for i in range(400)]
    kept = held_out_rows(pairs, 0.3)
    assert 0 < int(kept.sum()) < 400 and torch.equal(kept[:20], kept[20:40])
    assert torch.equal(held_out_rows(pairs[:100], 0.3), kept[:100])
    for share in (1e-9, 0.999999):
        rows = held_out_rows(pairs, share)
        assert 0 < int(rows.sum()) < 400
    with pytest.raises(CorpusError, match="all pairs share one context"):
        held_out_rows([Preference("a", "b", "c"), Preference("d", "e", "c")], 0.1)


def test_too_few_pairs(model: LatentModel, pairs: list[Preference]) -> None:
    with pytest.raises(CorpusError, match="9 pairs are too few to learn from; give at least 10"):
        train_preference(model, pairs[:9])


# The file of pairs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_pairs_are_read(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name,
        {"chosen": "A\u2028.", "rejected": "B.", "context": "C.", "by": "me"},
        "",
        {"chosen": "D", "rejected": "E", "context": None},
    )
    assert read_preferences(path) == [Preference("A\u2028.", "B.", "C."), Preference("D", "E", "")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object with `chosen` and `rejected`"),
        ('{"chosen": "A"}', "line 2: expected an object with"),
        ('{"chosen": "A", "rejected": 3}', "line 2: `rejected`: expected text, got int"),
        ('{"chosen": " ", "rejected": "B"}', "line 2: `chosen` is empty"),
        ('{"chosen": "\\ud800", "rejected": "B"}', "line 2: `chosen` is not valid Unicode"),
        ('{"chosen": "A", "rejected": "B", "context": []}', "line 2: `context`: expected text, got list"),
        ('{"chosen": "A", "rejected": "A "}', "line 2: `chosen` and `rejected` are the same"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "p.jsonl", {"chosen": "A", "rejected": "B"}, line)
    with pytest.raises(CorpusError, match=f"p.jsonl {message}"):
        read_preferences(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"cannot read pairs .*none.jsonl: No such file"):
        read_preferences(tmp_path / "none.jsonl")
    with pytest.raises(CorpusError, match="holds no pairs"):
        read_preferences(write(tmp_path / "p.jsonl", ""))
    (tmp_path / "p.jsonl").write_bytes(b'{"chosen": "\xef"}')
    with pytest.raises(CorpusError, match="is not UTF-8"):
        read_preferences(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl.gz").write_bytes(b"{}")
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        read_preferences(tmp_path / "p.jsonl.gz")


# The head's file ------------------------------------------------------------------------------------------------------


def test_a_head_survives_its_file(tmp_path: Path) -> None:
    head = PreferenceHead(PreferenceConfig(encoder_id="e", z_dim=Z_DIM, width=4, accuracy=0.75)).eval()
    path = tmp_path / "new" / "taste.safetensors"
    head.save(path)
    loaded = PreferenceHead.load(path, "e")
    z = torch.randn(3, Z_DIM)
    assert torch.equal(loaded.score(z), head.score(z)) and loaded.config == head.config
    assert loaded.score(z).shape == (3,) and loaded.score(z[:0]).shape == (0,)
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(CheckpointError, match="reads latents of encoder 'e', the model's is 'other'"):
        PreferenceHead.load(path, "other")
    with pytest.raises(LatentError, match=r"shape \(3, 2\), expected \[n, 6\]"):
        loaded.score(z[:, :2])
    with pytest.raises(LatentError, match="NaN"):
        loaded.score(z / 0)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="is missing"):
        PreferenceHead.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is no preference head; train one"):
        PreferenceHead.load(path)
    head = PreferenceHead(PreferenceConfig(encoder_id="e", z_dim=Z_DIM))
    head.mean /= 0
    head.save(path)
    with pytest.raises(CheckpointError, match="mean holds NaN"):
        PreferenceHead.load(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        PreferenceHead.load(path)
