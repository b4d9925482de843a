"""Stories, and passages made by hand, that the tests of passages, pairs and heads share."""

import numpy as np
import torch

from steer.data.passages import Passages

STORIES = [
    f"The {'fox dog cat hen'.split()[i % 4]} Tom{'abcdefg'[i % 7]} ran. It sat {i}. A cow sang! Was it so? It was."
    for i in range(60)
]


def passages_of(
    story: list[int], begin: list[int], end: list[int], span: list[bool], latents: torch.Tensor | None = None
) -> Passages:
    return Passages(
        torch.zeros(len(story), 2) if latents is None else latents,
        np.array(story),
        np.array(begin),
        np.array(end),
        np.array(span),
        np.full((max(story) + 1, 8), -1),
        10,
    )


def walks(stories: int, seed: int = 0) -> Passages:
    """Stories whose latents say who is in them (four numbers) and how far they have come (the fifth)."""
    rng = np.random.default_rng(seed)
    rows, story = [], []
    for number in range(stories):
        who = rng.normal(size=4) * 2
        for place in range(12):
            rows.append([*(who + 0.1 * rng.normal(size=4)), place / 3])
            story.append(number)
    begin = np.arange(12 * stories) % 12 * 10
    latents = torch.tensor(rows, dtype=torch.float32)
    return passages_of(story, begin.tolist(), (begin + 10).tolist(), [True] * len(story), latents)
