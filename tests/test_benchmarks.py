"""The benchmarks run, and what the search's counts is what the engine's design says."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from steer.models.build import fresh_model
from steer.models.checkpoint import save

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SPAN, SOFT = 8, 2


def load_main(name: str) -> Callable[[list[str]], int]:
    """`main` of a benchmark, which is a script and no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{Path(name).stem}", BENCHMARKS / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a script: what it shares with others stands beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    made = fresh_model(tiny_llama, span_tokens=SPAN, z_dim=8, soft_tokens=SOFT, rank=4, alpha=4, max_context=128)
    save(made, folder, with_base=True)
    return folder


def test_guided_writing(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    # The batch has no claim, so that how fast this machine is decides nothing.
    assert load_main("guided_writing.py")(["--quick", "--model", str(model), "--json", str(figures)]) == 0
    shown = capsys.readouterr()
    assert "2 spans of 8 behind 32 tokens" in shown.out and "guided + CFG 1.5, 2 at a time" in shown.err
    rows = json.loads(figures.read_text(encoding="utf-8"))["rows"]
    assert [row["what"] for row in rows] == ["guided", "guided + CFG 1.5", "unguided"]
    assert all(row["ratio"] == pytest.approx(row["ours"] / row["theirs"]) for row in rows)


def test_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    # 1 where this machine is too slow for the claim about adding.
    assert load_main("store.py")(["--quick", "--folder", str(tmp_path), "--json", str(figures)]) in (0, 1)
    assert "10,000 records, hnsw" in capsys.readouterr().err
    found = json.loads(figures.read_text(encoding="utf-8"))["latencies"]
    assert {row["kind"] for row in found} == {"flat", "hnsw", "ivfpq"}
    assert all(row["recall_at_10"] == 1.0 for row in found if row["kind"] == "flat")
    assert list(tmp_path.iterdir()) == [figures]


def test_search_throughput(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert load_main("search_throughput.py")(["--quick", "--model", str(model), "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "| float32 | 128 |" in out
    assert "- float32: logits within 1e-4 of a whole pass: reached" in out
    assert "- float32: at least 5 times generate at L=512, K=16: not measured" in out
    part = json.loads(figures.read_text(encoding="utf-8"))["dtypes"]["float32"]
    assert [(row["leaves"], row["fanout"]) for row in part["rows"]] == [(1, 4), (2, 4)]
    for row in part["rows"]:
        assert row["page_bytes"] == row["span_bytes"] / SPAN * (SPAN + SOFT)
        assert row["forward_tokens_per_sampled_token"] == pytest.approx((SPAN - 1 + (SOFT + 1) / row["fanout"]) / SPAN)
        assert set(row["nodes_per_second"]) == {"pages", "generate", "copied cache"}
        assert min(row["nodes_per_second"].values()) > 0
    assert list(part["depths"]) == ["1", "2"]
