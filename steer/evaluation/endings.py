"""Endings: texts that are written towards terminals, and how often they arrive, by the independent judge."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from steer.data.pairs import Pair
from steer.evaluation.decoding import Embed, Progress, nlls
from steer.evaluation.statistics import share_with_interval
from steer.latents.pull import Pull
from steer.latents.schedules import ScheduleConfig
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.writing.config import WritingConfig, writing_config
from steer.writing.guided import Written, write_guided

GROUP = 100
SAMPLES = 10
# How each arm is pulled to its terminals; None writes unguided.
ARMS: dict[str, dict[str, Any] | None] = {
    "unguided": None,
    "fixed": {"schedule": ScheduleConfig("constant", start=0.5)},
    "annealed": {},  # the default schedule, a bridge
    "annealed, CFG 1.25": {"guidance_scale": 1.25},
    "annealed, CFG 1.5": {"guidance_scale": 1.5},
}
SAMPLED = ("unguided", "annealed")  # arms of which samples are kept


def write_arm(
    model: LatentModel,
    pairs: Sequence[Pair],
    config: WritingConfig,
    *,
    guided: bool,
    seed: int = 0,
    batch: int = 20,
    tell: Callable[[int, int], None] | None = None,
) -> list[Written]:
    """Write behind every pair's context, unguided or pulled to the pair's terminal.

    Args:
        pairs: contexts and terminals.
        config: how.
        guided: whether terminals pull, by the schedule of `config`.
        seed: each pair's own seed derives from it and the pair's id, so that arms are compared on the same noise.
        batch: rows at once.
        tell: called with the texts written, and those in all.
    """
    z = model.encode([p.terminal for p in pairs], long="truncate")
    written: list[Written] = []
    for start in range(0, len(pairs), batch):
        chosen = pairs[start : start + batch]
        pulls = [Pull(z[start : start + batch], config.schedule.weights(config.spans))] if guided else []
        seeds = [derive_seed(seed, "pair", pair.id) for pair in chosen]
        written += write_guided(model, [pair.context for pair in chosen], pulls=pulls, seeds=seeds, config=config)
        if tell:
            tell(len(written), len(pairs))
    return written


def ending(spans: Sequence[str]) -> str:
    """The last of a text's spans that holds any text."""
    return next((span for span in reversed(spans) if span.strip()), "")


def arrival(endings: Sequence[str], terminals: Sequence[str], embed: Embed) -> np.ndarray:
    """Ranks `[n]` (1 = nearest) of the right terminal for each ending, among the terminals of its group of 100.

    What is left behind the last whole group is ranked among the last 100; fewer than 100 are one group.
    """
    ends, goals = embed(endings), embed(terminals)
    ranks = []
    for start in range(0, len(endings), GROUP):
        first = max(0, min(start, len(endings) - GROUP))
        scores = ends[first : first + GROUP] @ goals[first : first + GROUP].T
        better = scores > scores.diagonal()[:, None]
        ranks.append(better[start - first :].sum(1) + 1)
    return torch.cat(ranks).numpy()


def ending_figures(
    model: LatentModel,
    pairs: Sequence[Pair],
    embed: Embed,
    config: WritingConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How often the endings of each of `ARMS` arrive.

    Args:
        pairs: contexts and terminals; right terminals are ranked among each 100.
        embed: texts -> unit vectors, the judge's.
        config: how all arms write, without guidance.
        seed: of writing.
        progress: called with what is written, texts done, and texts in all.

    Returns:
        `pairs`, `among` (how many terminals), `spans`, `temperature`; `arms`, for each the share of endings whose
        nearest terminal is the right one with its 95 % interval (`nearest`), the share within the nearest five
        (`nearest_five`), and the mean `base_nll` of what was written; and `samples`, the first ten pairs, not chosen:
        `context`, `goal`, and the ending of each arm of `SAMPLED`.
    """
    found: dict[str, Any] = {"pairs": len(pairs), "among": min(len(pairs), GROUP), "spans": config.spans}
    found |= {"temperature": config.sampling.temperature, "arms": {}}
    samples = [{"context": pair.context, "goal": pair.terminal} for pair in pairs[:SAMPLES]]
    for arm, changes in ARMS.items():
        tell = None if progress is None else lambda done, total, arm=arm: progress(f"{arm} endings", done, total)
        options: dict[str, Any] = changes or {}
        how = writing_config(config, **options)
        written = write_arm(model, pairs, how, guided=changes is not None, seed=seed, tell=tell)
        ends = [ending(w.spans) for w in written]
        ranks = arrival(ends, [p.terminal for p in pairs], embed)
        found["arms"][arm] = {
            "nearest": share_with_interval(ranks == 1),
            "nearest_five": share_with_interval(ranks <= 5),
            "base_nll": float(np.nanmean(nlls(model, [w.context for w in written], [w.ids for w in written]))),
        }
        if arm in SAMPLED:
            for sample, end in zip(samples, ends, strict=False):
                sample[arm] = end.strip()
    return found | {"samples": samples}
