"""The figures of a latent model: how much its latents carry, and how often guided endings arrive."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steer.data.pairs import Pair, make_pairs
from steer.evaluation.decoding import nlls
from steer.evaluation.judge import Judge, judge_folder
from steer.evaluation.latents import latent_figures, quality_figures
from steer.evaluation.scripts import play_figures
from steer.evaluation.shares import share_with_interval
from steer.latents.pull import Pull
from steer.latents.schedules import make_schedule
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.writing.guided import Written, write_guided
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig

GROUP = 100
SAMPLES = 10
ARMS: dict[str, dict[str, Any]] = {
    "unguided": {"schedule": None},
    "fixed": {"schedule": "constant", "options": {"start": 0.5}},
    "annealed": {"schedule": "bridge"},
    "annealed, CFG 1.25": {"schedule": "bridge", "guidance_scale": 1.25},
    "annealed, CFG 1.5": {"schedule": "bridge", "guidance_scale": 1.5},
}
SAMPLED = ("unguided", "annealed")  # arms of which samples are kept

Progress = Callable[[str, int, int], None]


def write_arm(
    model: LatentModel,
    pairs: Sequence[Pair],
    *,
    schedule: str | None,
    options: Mapping[str, float] | None = None,
    guidance_scale: float = 1.0,
    spans: int = 6,
    seed: int = 0,
    batch: int = 20,
    sampling: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> list[Written]:
    """Write behind every pair's context, unguided (`schedule=None`) or pulled to the pair's terminal.

    Args:
        model: a `LatentModel`.
        pairs: contexts and terminals.
        schedule, options: of the pull, see `steer.latents.schedules.make_schedule`.
        guidance_scale: of classifier-free guidance.
        spans: to write.
        seed: each pair's own seed derives from it and the pair's id, so that arms are compared on the same noise.
        batch: rows at once.
        sampling: settings.
        progress: see `latent_figures`.
    """
    z = model.encode([p.terminal for p in pairs], long="truncate")
    written: list[Written] = []
    for start in range(0, len(pairs), batch):
        chosen = pairs[start : start + batch]
        pulls = []
        if schedule is not None:
            pulls.append(Pull(z[start : start + batch], make_schedule(schedule, spans, **(options or {}))))
        seeds = [derive_seed(seed, "pair", pair.id) for pair in chosen]
        contexts = [pair.context for pair in chosen]
        written += write_guided(
            model,
            contexts,
            pulls=pulls,
            spans=spans,
            seeds=seeds,
            sampling=sampling or SamplingConfig(),
            guidance_scale=guidance_scale,
            limits=Limits(plays=True),
        )
        if progress:
            progress(f"{schedule or 'unguided'} endings", len(written), len(pairs))
    return written


def ending(spans: Sequence[str]) -> str:
    """The last of a text's spans that holds any text."""
    return next((span for span in reversed(spans) if span.strip()), "")


def arrival(endings: Sequence[str], terminals: Sequence[str], embed: Callable[[Sequence[str]], Tensor]) -> np.ndarray:
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


def evaluate(
    model: LatentModel,
    stories: Sequence[str],
    *,
    pairs: int = GROUP,
    fewest: int | None = None,
    spans: int = 6,
    seed: int = 0,
    sampling: SamplingConfig | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All figures of `steer eval`.

    Args:
        model: a `LatentModel`.
        stories: text that the model was not trained on.
        pairs: context and terminal pairs for the endings, and as many spans, paths and groups for the quality of
            latents; right terminals are ranked among each 100.
        fewest: so many pairs, at least two, will do where stories give no more; by default `pairs`.
        spans: spans written per pair.
        seed: of windows, pairs and writing.
        sampling: settings; by default temperature 0.7 and top-p 0.95.
        judge: the embedder; by default the installed extra. Without it the endings are left out, and the quality of
            latents is told by the model's own encoder.
        progress: called with what is measured, how much is done, and how much there is.

    Returns:
        `latents` (see `latent_figures`), `quality` (see `steer.evaluation.quality_figures`), `plays` where stories make
        plays (see `steer.evaluation.scripts.play_figures`), `reach` where the model has a reach head (see
        `steer.evaluation.reach.reach_figures`), `prior` where it has a draft head (see
        `steer.evaluation.prior.prior_figures`), and `endings`: for each of `ARMS` the share of endings whose
        nearest terminal among 100 is the right one with its 95 % interval (`nearest`), the share within the nearest
        five (`nearest_five`), and the mean `base_nll` of what was written; and `samples`, the first ten pairs, not
        chosen: `context`, `goal`, and the ending of each arm of `SAMPLED`. `among` is the number of terminals.

    Raises:
        CorpusError: too few stories are long enough for the pairs, or none for a span.
    """
    cut = make_pairs(model, stories, pairs, seed=seed, fewest=fewest)  # first, so that too little text is told at once
    if judge is None and judge_folder() is not None:
        judge = Judge()
    figures: dict[str, Any] = {
        "latents": latent_figures(model, stories, seed=seed, progress=progress),
        "quality": quality_figures(
            model, stories, cut, None if judge is None else judge.embed, seed=seed, progress=progress
        ),
    }
    if (plays := play_figures(model, stories, count=len(cut), seed=seed, progress=progress)) is not None:
        figures["plays"] = plays
    if getattr(model, "reach", None) is not None:
        from steer.evaluation.reach import reach_figures

        figures["reach"] = reach_figures(model, stories, seed=seed, progress=progress)
    if getattr(model, "prior", None) is not None:
        from steer.evaluation.prior import prior_figures

        figures["prior"] = prior_figures(model, stories, seed=seed, progress=progress)
    if judge is None:
        return figures
    sampling = sampling or SamplingConfig(temperature=0.7, top_p=0.95)
    endings: dict[str, Any] = {"pairs": len(cut), "among": min(len(cut), GROUP), "spans": spans}
    endings |= {"temperature": sampling.temperature, "arms": {}}
    samples = [{"context": pair.context, "goal": pair.terminal} for pair in cut[:SAMPLES]]
    for arm, settings in ARMS.items():
        written = write_arm(model, cut, spans=spans, seed=seed, sampling=sampling, progress=progress, **settings)
        ends = [ending(w.spans) for w in written]
        ranks = arrival(ends, [p.terminal for p in cut], judge.embed)
        endings["arms"][arm] = {
            "nearest": share_with_interval(ranks == 1),
            "nearest_five": share_with_interval(ranks <= 5),
            "base_nll": float(np.nanmean(nlls(model, [w.context for w in written], [w.ids for w in written]))),
        }
        if arm in SAMPLED:
            for sample, end in zip(samples, ends, strict=False):
                sample[arm] = end.strip()
    figures["endings"] = endings | {"samples": samples}
    return figures
