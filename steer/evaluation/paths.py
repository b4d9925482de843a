"""Interpolation: what is written along the line between the latents of two sentences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from steer.evaluation.decoding import Embed, Progress, decode, nlls
from steer.evaluation.statistics import share_with_interval, spearman
from steer.latents.mixing import mix
from steer.latents.pull import Pull
from steer.models.latent_model import LatentModel

STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)


def path_figures(
    model: LatentModel, sentences: Sequence[str], embed: Embed, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Walk from each sentence (A) to the next one of the list (B), the last one to the first.

    Latents are mixed as guidance mixes them: linearly, and rescaled to the weighted mean of the two norms
    (`steer.latents.mixing.mix`). Texts are written greedily with empty context, and compared with the two sentences
    themselves, not with what is written at the ends.

    Args:
        sentences: unseen, of different stories, each at most a span long; at least two.

    Returns:
        `paths` and `t`; for each t the means `to_a`, `to_b` (cosines) and `base_nll` (nats per token); `unrelated`, the
        mean cosine of A and B; shares of paths with intervals: `rises` (the similarity to B never falls on the way)
        and `falls` (that to A never rises); `spearman`, the mean rank correlation of t and the similarity to B;
        `as_fluent`, the share of texts between the ends that the base finds at least as likely as the less likely end;
        `distinct`, different texts per path.
    """
    start = model.encode(list(sentences), long="truncate")
    end, n = start.roll(-1, 0), len(sentences)
    points = [mix(start, [Pull(end, torch.tensor([t]))], 0) for t in STEPS]
    rows = decode(model, torch.cat(points), what="interpolation", progress=progress)
    texts = [model.to_text(ids) for ids in rows]
    a = embed(list(sentences))
    b, found = a.roll(-1, 0), embed(texts).unflatten(0, (len(STEPS), n))
    to_a, to_b = ((found * side).sum(-1).double().numpy() for side in (a, b))
    nll = nlls(model, [()] * len(rows), rows).reshape(len(STEPS), n)
    return {
        "paths": n,
        "t": list(STEPS),
        "unrelated": float((a * b).sum(1).mean()),
        **summarize_paths(to_a, to_b, nll),
        "distinct": float(np.mean([len(set(texts[i::n])) for i in range(n)])),
    }


def summarize_paths(to_a: np.ndarray, to_b: np.ndarray, nll: np.ndarray) -> dict[str, Any]:
    """The figures of paths from what was measured at each point, `[points, paths]`; see `path_figures`."""
    steps = np.arange(len(to_b))
    return {
        "to_a": to_a.mean(1).tolist(),
        "to_b": to_b.mean(1).tolist(),
        "base_nll": nll.mean(1).tolist(),
        "rises": share_with_interval(np.diff(to_b, axis=0).min(0) >= 0),
        "falls": share_with_interval(np.diff(to_a, axis=0).max(0) <= 0),
        "spearman": float(np.mean([spearman(steps, path) for path in to_b.T])),
        "as_fluent": share_with_interval((nll[1:-1] <= np.maximum(nll[0], nll[-1])).flatten()),
    }
