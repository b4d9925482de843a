"""The search benchmark runs, and what it counts is what the engine's design says."""

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


def test_search_throughput(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # as for a script: what it shares stands beside it
    model = fresh_model(tiny_llama, span_tokens=SPAN, z_dim=8, soft_tokens=SOFT, rank=4, alpha=4, max_context=128)
    save(model, tmp_path / "model", with_base=True)
    figures = tmp_path / "figures.json"
    arguments = ["--quick", "--model", str(tmp_path / "model"), "--json", str(figures)]
    assert load_main("search_throughput.py")(arguments) == 0

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
