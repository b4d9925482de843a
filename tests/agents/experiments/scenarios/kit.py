"""What the tests of experiments over scenarios share: two small scenarios and a file that runs them."""

from pathlib import Path
from typing import Any

import yaml

from agents.experiments.load import load_experiment
from agents.experiments.scenarios.kind import ScenarioKind
from agents.experiments.scenarios.spec import ScenarioExperiment

SCENARIOS: dict[str, dict[str, Any]] = {
    "agree-sea": {
        "opening": "The sun was up.",
        "turns": 2,
        "characters": [
            {"id": "ann", "name": "Ann", "goals": [{"id": "boat", "text": "A bee."}]},
            {"id": "bob", "name": "Bob", "goals": [{"id": "boat", "text": "A bee."}]},
        ],
    },
    "against-hill": {
        "opening": "It was cold.",
        "turns": 3,
        "characters": [
            {"id": "cat", "name": "Cat", "goals": [{"id": "up", "text": "My cat."}]},
            {"id": "dan", "name": "Dan", "goals": [{"id": "down", "text": "Red ox.", "weight": 0.5}]},
        ],
    },
}
ARMS: list[dict[str, Any]] = [
    {"name": "plain", "planner": {"method": "unguided"}},
    {"name": "Pulled", "planner": {"method": "annealed"}},
]


def write_file(folder: Path, **changes: Any) -> Path:
    """The YAML file of a small experiment, and its scenarios beside it; `None` takes a key out."""
    for name, scenario in SCENARIOS.items():
        data = {"id": name, "spans_per_turn": 1, "sampling": {"temperature": 0.9}} | scenario
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    data = {"id": "small", "scenarios": [f"{name}.yaml" for name in SCENARIOS], "arms": ARMS} | changes
    path = folder / "experiment.yaml"
    kept = {key: value for key, value in data.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path


def small_experiment(folder: Path, **changes: Any) -> ScenarioExperiment:
    """The experiment of `write_file`."""
    return load_kind(write_file(folder, **changes)).experiment


def small_kind(folder: Path, **changes: Any) -> ScenarioKind:
    """The same with its scenarios."""
    return load_kind(write_file(folder, **changes))


def load_kind(path: Path) -> ScenarioKind:
    """The experiment of a file with its scenarios."""
    loaded = load_experiment(path)
    assert isinstance(loaded, ScenarioExperiment)
    return ScenarioKind.make(loaded)
