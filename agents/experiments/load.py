"""The kinds of experiments, and reading a file of any of them."""

from pathlib import Path
from typing import Any

from agents.errors import ExperimentError
from agents.experiments.kind import Kind
from agents.experiments.pairs.kind import PairKind
from agents.experiments.scenarios.kind import ScenarioKind
from agents.experiments.spec import Experiment
from steer.yaml_file import read_yaml

KINDS: dict[str, type[Kind[Any]]] = {kind.name: kind for kind in (PairKind, ScenarioKind)}


def load_experiment(path: str | Path) -> Experiment:
    """Read and check the file of an experiment, whose keys say of which kind it is. Its paths become absolute.

    Texts that an arm names by a file, as `samples` of a voice, are read: they decide what is written, wherever the file
    lies.

    Raises:
        ExperimentError: it is no YAML, or does not fit the schema; one line `file:line: key: what is wrong` per error.
        ScenarioError: the same of a scenario that it names.
        TextError: it is missing, unreadable, or not UTF-8.
    """
    file = read_yaml(path, "experiment", expected=f"id, arms, and {' or '.join(KINDS)}", error=ExperimentError)
    kind = next((kind for name, kind in reversed(KINDS.items()) if name in file.data), KINDS["pairs"])
    with file.checked(kind.spec):
        experiment = kind.spec.model_validate(kind.absolute(file.data, Path(path).resolve().parent))
        kind.check(experiment)
    return experiment


def kind_of(experiment: Experiment) -> type[Kind[Any]]:
    """The kind of an experiment.

    Raises:
        ExperimentError: no kind has a record of this class.
    """
    for kind in KINDS.values():
        if isinstance(experiment, kind.spec):
            return kind
    known = ", ".join(kind.spec.__name__ for kind in KINDS.values())
    raise ExperimentError(f"expected an experiment of a known kind ({known}); got a {type(experiment).__name__}")
