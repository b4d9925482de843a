"""What the tests of experiments share: a small experiment, a judge that counts letters, a run to kill or race."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from agents.experiments.kind import ArmInfo
from agents.experiments.load import load_experiment
from agents.experiments.pairs.arms import ARMS, Sample, Task, write_unguided
from agents.experiments.pairs.options import Options
from agents.experiments.pairs.spec import PairExperiment
from agents.experiments.results import Results, Row
from agents.experiments.results import TestedPair as PairTest  # pytest would take the name for a test
from agents.experiments.run import run_experiment
from agents.experiments.statistics import Comparison, Estimate
from steer.data.pairs import Pair

ROOT = Path(__file__).resolve().parents[3]
ENDS = ["A bee.", "My cat.", "The sea.", "A moon.", "Red fox.", "Big sky."]
PAIRS = [Pair(f"p{i}", f"Once upon a {i}", end) for i, end in enumerate(ENDS)]
ARM_LIST: list[dict[str, Any]] = [
    {"name": "plain", "method": "unguided"},
    {"name": "none", "method": "fixed", "start": 0.0},
    {"name": "pulled", "method": "annealed"},
]
SECONDS = 0.1  # per cell of a slow arm


class Letters:
    """A judge that counts letters, and what it was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        rows = [[float(text.lower().count(letter)) + 0.01 for letter in "aeiouybcmsf"] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def experiment(folder: Path, **changes: Any) -> PairExperiment:
    """A small experiment whose pairs lie in `folder`; `None` takes a key out."""
    loaded = load_experiment(write_file(folder, **changes))
    assert isinstance(loaded, PairExperiment)
    return loaded


def write_file(folder: Path, **changes: Any) -> Path:
    """The YAML file of `experiment`."""
    import json

    lines = [json.dumps({"id": p.id, "context": p.context, "terminal": p.terminal}) for p in PAIRS]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data: Mapping[str, Any] = {
        "id": "small",
        "pairs": {"file": "pairs.jsonl"},
        "spans": 2,
        "chunk": 2,
        "sampling": {"temperature": 0.9},
        "arms": ARM_LIST,
    } | changes
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
    return path


def made_results(rows: Sequence[tuple[ArmInfo, Mapping[str, Estimate]]], **changes: Any) -> Results:
    """Results of arms with such measures over eight items; the first is the reference."""
    whole = tuple(Row(arm.name, "all", "", 8, measures) for arm, measures in rows)
    fields: dict[str, Any] = {
        **{"kind": "pairs", "id": "id", "title": "A title", "model": "tiny", "seeds": (0, 1)},
        **{"items": tuple(f"p{i}" for i in range(8)), "reference": rows[0][0].name, "judged": True},
        **{"facts": {"spans": 6.0, "group": 100.0}, "arms": tuple(arm for arm, _ in rows), "rows": whole},
        **{"tests": (), "courses": {}},
    }
    return Results(**fields | changes)


def made_test(measure: str, arm: str, reference: str, difference: float, p: float) -> PairTest:
    """A test with a small effect."""
    found = Comparison(Estimate(difference, 0.0, 1.0, 8), p, "sign flips", 0.5, "d", 0.25)
    return PairTest(measure, arm, reference, found, p)


def sample(*spans: str, ended: bool = False) -> Sample:
    return Sample("".join(spans), spans, tuple("".join(spans).encode()), ended, 8, 1)


def run_slowly(file: Path, run: Path, log: Path) -> None:
    """Run the experiment of a file, whose arms of method `slow` note in `log` what they write, and take their time."""
    from steer.models.latent_model import LatentModel

    def write_slow(task: Task, options: Options) -> list[Sample]:
        with log.open("a", encoding="utf-8") as lines:
            lines.write(f"{os.getpid()} {task.pairs[0].id} {task.seeds[0]}\n")
        time.sleep(SECONDS)
        return write_unguided(task, options)

    ARMS["slow"] = write_slow
    loaded = load_experiment(file)
    run_experiment(loaded, run, lambda: LatentModel.from_pretrained(loaded.model), open_judge=Letters)
