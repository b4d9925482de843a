"""How good a reach head is, on stories that it has not seen."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from steer.data.passage_pairs import EARLIER, Pairs, PairSampler, other_pairs
from steer.data.passages import Passages, encode_passages, find_rivals, join_passages
from steer.evaluation.decoding import Progress, read_in_parts
from steer.evaluation.statistics import auc, calibration
from steer.evaluation.told import told_figures
from steer.heads.reach import ReachHead
from steer.models.latent_model import LatentModel

HORIZON = 6  # spans, for the calibration: as many as a guided text has by default


def nearer_and_farther(pairs: Pairs, count: int, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    """Two states of one story for the same terminal, one nearer to it than the other: up to `count` such pairs."""
    pairs = pairs.take(np.flatnonzero(pairs.distance >= 1))
    pairs = pairs.take(np.argsort(pairs.terminal, kind="stable"))
    first = np.searchsorted(pairs.terminal, pairs.terminal, side="left")
    last = np.searchsorted(pairs.terminal, pairs.terminal, side="right")
    one = rng.permutation(len(pairs))[:count]
    two = first[one] + (rng.random(len(one)) * (last - first)[one]).astype(int)
    kept = pairs.distance[one] != pairs.distance[two]
    one, two = one[kept], two[kept]
    swap = pairs.distance[one] > pairs.distance[two]
    return pairs.take(np.where(swap, two, one)), pairs.take(np.where(swap, one, two))


def measure(head: ReachHead, passages: Passages, *, count: int = 6000, seed: int = 0) -> dict[str, Any]:
    """See `reach_figures`; of passages that are encoded already."""
    rng = np.random.default_rng((seed, 2))
    sampler = PairSampler(passages, head.config)
    inside = sampler.inside
    mix = sampler.draw(count, rng)
    latents = passages.latents

    def of(function: Callable[..., torch.Tensor], pairs: Pairs, *more: int) -> np.ndarray:
        return function(latents[pairs.state], latents[pairs.terminal], *more).cpu().numpy()

    def reachable(state: torch.Tensor, terminal: torch.Tensor) -> torch.Tensor:
        return 1 - head.probabilities(state, terminal)[:, -1]

    cosine = torch.nn.functional.cosine_similarity
    ahead = mix.take(np.flatnonzero(mix.distance >= 1))
    earlier = inside.take(np.flatnonzero(inside.distance == EARLIER))
    wrong = {
        "other": other_pairs(passages, count, rng, rivals=False),
        "rival": other_pairs(passages, count, rng, rivals=True),
        "earlier": earlier.take(rng.permutation(len(earlier))[:count]),
    }
    near, far = nearer_and_farther(inside, count, rng)
    figures: dict[str, Any] = {"passages": len(passages.story), "states": int(passages.span.sum())}
    for name, function in (("reach", reachable), ("cosine", cosine)):
        right = of(function, ahead)
        auc_of = {kind: auc(right, of(function, pairs)) for kind, pairs in wrong.items() if len(pairs) and len(right)}
        score = head.distance if name == "reach" else lambda a, b: -cosine(a, b)
        gain = of(score, far) - of(score, near)
        figures[name] = {
            **{f"auc_{kind}": value for kind, value in auc_of.items()},
            "order": float((gain > 0).mean() + (gain == 0).mean() / 2) if len(gain) else None,
        }
    came = (mix.distance >= 0) & (mix.distance <= HORIZON)
    figures["calibration"] = {"spans": HORIZON, **calibration(of(head.within, mix, HORIZON), came)}
    if (told := told_figures(head, passages, seed=seed)) is not None:
        figures["told"] = told
    return figures


def reach_figures(
    model: LatentModel,
    stories: Sequence[str],
    *,
    limit: int = 400,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How well a model's reach head tells what can be reached, on unseen stories.

    Args:
        model: a `LatentModel` with a reach head.
        stories: text that it was not trained on.
        limit: stories used, drawn at random.
        seed: of stories, cuts and pairs.

    Returns:
        `reach` and, for comparison, the bare `cosine` of the two latents: `auc_other`, `auc_rival`, `auc_earlier` (a
        terminal that is still to come scores above one of another story, of another story with a shared name, and above
        one told before), `order` (of two states of a story the nearer to the terminal gets the smaller distance).
        `calibration` of `within` 6 spans over the mix of pairs that the head was trained for, see `calibration`.
        `told`, where the head has thresholds for it: see `steer.evaluation.told.told_figures`.
        `passages` and `states`: how many were encoded.

    Raises:
        CorpusError: no stories, or none of two spans.
    """
    read = partial(encode_passages, model, seed=seed)
    texts, parts = read_in_parts(stories, read, limit=limit, seed=seed, what="reach", progress=progress)
    assert model.reach is not None
    return measure(model.reach, join_passages(parts, find_rivals(texts, seed=seed), model.span_tokens), seed=seed)
