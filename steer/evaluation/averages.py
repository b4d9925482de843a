"""Averages of latents: does the mean of a story's spans decode to what the story is about?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steer.evaluation.decoding import Embed, Ids, Progress, decode, nlls
from steer.evaluation.statistics import nearest_own, share_with_interval
from steer.latents.mixing import task_vector
from steer.models.latent_model import LatentModel

SIZES = (1, 2, 4, 8)
REST = 4  # spans of a story that stand for what was not averaged
FEWEST = 20  # stories without which a size is left out


def average_figures(
    model: LatentModel,
    cut: Sequence[Sequence[Ids]],
    embed: Embed,
    *,
    count: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Decode mean latents of k spans of one story, and of k spans of k stories, with empty context.

    Means are rescaled to the mean norm of what went in (`steer.latents.mixing.task_vector`). The stories and the order
    of
    their spans are the same for every k, and what stands for the rest of a story is never averaged.

    Args:
        cut: stories as spans, of `cut_spans`.
        count: stories, at most; texts are told apart among as many.
        seed: of stories and spans.

    Returns:
        `stories`, `rest` (spans that stand for the rest), and `sizes`, for each k (as text) `one_story` and (k above
        1) `mixed`: `own`, the share of texts nearest to the spans that were averaged, among all groups of that kind;
        `base_nll`, nats per token; and, of one story, `rest`, the share of texts nearest to the rest of their own
        story among all stories. None where fewer than 20 stories (or `count`, if less) are longer than two spans.
    """
    needed = min(count, FEWEST)
    sizes = [k for k in SIZES if sum(len(story) > k for story in cut) >= needed]
    if len(sizes) < 2:
        return None
    rng = np.random.default_rng((seed, 3))
    long = [i for i in rng.permutation(len(cut)) if len(cut[int(i)]) > sizes[-1]][:count]
    drawn = [[cut[i][j] for j in rng.permutation(len(cut[i]))[: sizes[-1] + REST]] for i in long]
    n, top = len(drawn), sizes[-1]
    z, vectors = _read(model, embed, drawn)
    rest = torch.stack([v[top:].mean(0) for v in vectors])
    shifts = rng.permutation(n)
    figures: dict[str, Any] = {"stories": n, "rest": REST, "sizes": {}}
    for k in sizes:
        groups = {"one_story": [[(i, j) for j in range(k)] for i in range(n)]}
        if 1 < k <= n:
            # Every slot of a group is filled from another story.
            groups["mixed"] = [[((i + int(shifts[j])) % n, j) for j in range(k)] for i in range(n)]
        figures["sizes"][str(k)] = {}
        for kind, members in groups.items():
            means = torch.stack([task_vector(torch.stack([z[i][j] for i, j in group])) for group in members])
            rows = decode(model, means, what=f"averages of {k}, {kind.replace('_', ' ')}", progress=progress)
            found = embed([model.to_text(ids) for ids in rows])
            own = torch.stack([torch.stack([vectors[i][j] for i, j in group]).mean(0) for group in members])
            figures["sizes"][str(k)][kind] = {
                "own": share_with_interval(nearest_own(found @ _unit(own).T)),
                "base_nll": float(nlls(model, [()] * n, rows).mean()),
            }
            if kind == "one_story":
                figures["sizes"][str(k)][kind]["rest"] = share_with_interval(nearest_own(found @ _unit(rest).T))
    return figures


def _read(model: LatentModel, embed: Embed, stories: Sequence[Sequence[Ids]]) -> tuple[list[Tensor], list[Tensor]]:
    """Latents and embeddings of each story's spans."""
    flat = [ids for story in stories for ids in story]
    sizes = [len(story) for story in stories]
    z, vectors = model.encode_ids(flat), embed([model.to_text(ids) for ids in flat])
    return list(z.split(sizes)), list(vectors.split(sizes))


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)
