"""What an experiment will cost: from cells that are done, else from a small timed sample of each arm."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch

from agents.experiments.kind import Cell, Tally
from agents.experiments.load import kind_of
from agents.experiments.manifest import existing_run
from agents.experiments.spec import Experiment
from steer.models.latent_model import LatentModel


@dataclass(frozen=True)
class ArmForecast:
    """What is left of one arm.

    Attributes:
        name: of the arm.
        texts: yet to be written; of scenarios, runs.
        tokens, seconds: that they will take.
        measured: whether that comes from cells of this arm that are done; else from a sample.
    """

    name: str
    texts: int
    tokens: int
    seconds: float
    measured: bool


@dataclass(frozen=True)
class Forecast:
    """What is left of an experiment.

    Attributes:
        arms: one by one.
        cells, done: of the experiment.
        tokens, seconds: of all arms; measuring comes on top.
        memory: bytes at the peak, roughly: the process after the sample, and keys and values of the largest cell.
    """

    arms: tuple[ArmForecast, ...]
    cells: int
    done: int
    tokens: int
    seconds: float
    memory: int


def forecast(experiment: Experiment, model: LatentModel, folder: Path, *, limit: int | None = None) -> Forecast:
    """Estimate what is left. Writes nothing into the folder.

    Args:
        experiment: to run.
        model: writes the samples.
        folder: of a run that may have been started.
        limit: as in `run_experiment`.

    Raises:
        RunMismatch: the folder holds a run of another experiment.
        RunDamaged: files of the run were changed.
    """
    made = kind_of(experiment)
    kind = existing_run(made, experiment, folder) or made.make(experiment, lambda: model)
    cells = kind.plan(limit)
    found = {cell.key: kind.look(folder, cell, judged=False) for cell in cells}
    arms, largest = [], 0.0
    for info in kind.arms():
        own = [cell for cell in cells if cell.row == info.name]
        if not own:
            continue
        left = [cell for cell in own if found[cell.key] is None]
        done = [cell for cell in own if found[cell.key] is not None]
        tokens, seconds = _rates_of_done(done, found) if done else kind.trial(own[0], model)
        size = sum(cell.size for cell in left)
        texts = sum(cell.units for cell in left)
        arms.append(ArmForecast(info.name, texts, round(tokens * size), seconds * size, bool(done)))
        largest = max(largest, tokens)
    return Forecast(
        arms=tuple(arms),
        cells=len(cells),
        done=sum(tally is not None for tally in found.values()),
        tokens=sum(arm.tokens for arm in arms),
        seconds=sum(arm.seconds for arm in arms),
        memory=_peak_bytes(model) + round(kind.cached_tokens(cells, model, largest) * _cache_bytes(model)),
    )


def _rates_of_done(cells: Sequence[Cell], found: dict[str, Tally | None]) -> tuple[float, float]:
    """Tokens and seconds per unit of size."""
    total = reduce(Tally.__add__, [tally for cell in cells if (tally := found[cell.key]) is not None])
    size = sum(cell.size for cell in cells)
    return total.tokens / size, total.seconds / size


def _cache_bytes(model: LatentModel) -> int:
    """Bytes of keys and values per token."""
    config = model.peft.get_base_model().config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return 2 * config.num_hidden_layers * kept * width * model.dtype.itemsize


def _peak_bytes(model: LatentModel) -> int:
    """The most memory that this process has held so far, where the model is."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    try:
        import resource
    except ImportError:  # not on Windows
        return sum(p.numel() * p.element_size() for p in model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes everywhere but on macOS
