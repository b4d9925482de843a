"""What an experiment will cost: from cells that are done, else from a small timed sample of each arm."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from agents.experiments.cells import Cell, CellStore, plan_cells
from agents.experiments.runner import write_cell
from agents.experiments.spec import Arm, Experiment, Variant
from steer.data.pairs import Pair

TRIAL_PAIRS = 4


@dataclass(frozen=True)
class ArmForecast:
    """What is left of one arm.

    Attributes:
        name: of the variant.
        texts: yet to be written.
        tokens, seconds: that they will take.
        measured: whether that comes from cells of this arm that are done; else from a sample with its smallest budget,
            taken to grow with the budget. Small batches are slow, so that is rather too much.
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
        memory: bytes at the peak, roughly: the process after the sample, and keys and values of the largest chunk.
    """

    arms: tuple[ArmForecast, ...]
    cells: int
    done: int
    tokens: int
    seconds: float
    memory: int


def forecast(
    experiment: Experiment, model: Any, pairs: Sequence[Pair], store: CellStore | None, *, limit: int | None = None
) -> Forecast:
    """Estimate what is left. Writes no file.

    Args:
        experiment: to run.
        model: a `LatentModel`.
        pairs: all of the experiment.
        store: of a run that was started; None where there is none.
        limit: as in `run_experiment`.
    """
    count = min(len(pairs), limit or experiment.limit or len(pairs))
    cells = plan_cells(experiment, count)
    trials: dict[str, tuple[float, float, float]] = {}
    arms, largest = [], 0.0
    for variant in experiment.variants():
        own = [cell for cell in cells if cell.variant == variant]
        left = [cell for cell in own if store is None or store.records(cell) is None]
        rates = None if store is None else _rates_of_done(store, [cell for cell in own if cell not in left])
        measured = rates is not None
        if rates is None:
            if variant.arm.name not in trials:
                trials[variant.arm.name] = _trial(experiment, model, variant.arm, pairs)
            tokens, seconds, budget = trials[variant.arm.name]
            factor = 1.0 if variant.budget is None else variant.budget / budget
            rates = tokens * factor, seconds * factor
        texts = sum(cell.stop - cell.start for cell in left)
        arms.append(ArmForecast(variant.name, texts, round(rates[0] * texts), rates[1] * texts, measured))
        largest = max(largest, rates[0])
    context = max(len(model.to_ids(pair.context)) for pair in pairs[:count])
    return Forecast(
        arms=tuple(arms),
        cells=len(cells),
        done=0 if store is None else sum(store.records(cell) is not None for cell in cells),
        tokens=sum(arm.tokens for arm in arms),
        seconds=sum(arm.seconds for arm in arms),
        memory=peak_bytes(model) + round(min(experiment.chunk, count) * (context + largest) * _cache_bytes(model)),
    )


def _rates_of_done(store: CellStore, cells: Sequence[Cell]) -> tuple[float, float] | None:
    """Tokens and seconds per text of cells that are done; None where there are none."""
    samples = [record.sample for cell in cells for record in store.records(cell) or []]
    if not samples:
        return None
    return float(np.mean([s.tokens for s in samples])), float(np.mean([s.seconds for s in samples]))


def _trial(experiment: Experiment, model: Any, arm: Arm, pairs: Sequence[Pair]) -> tuple[float, float, float]:
    """Tokens and seconds per text of a few pairs, and the budget they were written with (1 where there is none)."""
    budget = min(arm.budgets) if arm.budgets else arm.budget
    count = min(TRIAL_PAIRS, len(pairs))
    cell = Cell(Variant(arm.name, arm, budget), experiment.seeds[0], 0, count)
    # A first, short call takes what is done only once, such as merging adapters.
    write_cell(experiment.model_copy(update={"spans": 1}), model, replace(cell, stop=1), pairs)
    start = time.perf_counter()
    records = write_cell(experiment, model, cell, pairs)
    seconds = (time.perf_counter() - start) / count
    return float(np.mean([record.sample.tokens for record in records])), seconds, budget or 1.0


def _cache_bytes(model: Any) -> int:
    """Bytes of keys and values per token."""
    config = model.peft.get_base_model().config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return 2 * config.num_hidden_layers * kept * width * model.dtype.itemsize


def peak_bytes(model: Any) -> int:
    """The most memory that this process has held so far, where the model is."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    try:
        import resource
    except ImportError:  # not on Windows
        return sum(p.numel() * p.element_size() for p in model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes everywhere but on macOS
