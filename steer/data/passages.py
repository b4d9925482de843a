"""What the reach head learns from: stories cut into spans, and into sentences as goals are, and their latents."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from steer.data.windows import sentence_ends

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel

NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
RIVALS = 8  # other stories with a shared name, kept per story


@dataclass(frozen=True)
class Passages:
    """Encoded passages of stories, grouped by story in order. P passages, N stories.

    Attributes:
        latents: `[P, z_dim]` float32.
        story: `[P]` int64, rising.
        begin, end: `[P]` int64, token positions in the story.
        span: `[P]` bool, whether it is a span of S tokens, which may be a state.
        rivals: `[N, 8]` int64, other stories that share a name; -1 where there are fewer.
        span_tokens: S.
    """

    latents: Tensor
    story: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    span: np.ndarray
    rivals: np.ndarray
    span_tokens: int


def names_in(text: str) -> set[str]:
    """Capitalised words inside sentences: names, nearly always."""
    return set(NAME.findall(text))


def find_rivals(stories: Sequence[str], *, seed: int = 0) -> np.ndarray:
    """For each story other stories that share a name: `[N, 8]` int64, -1 where there are fewer.

    Args:
        stories: texts.
        seed: of the choice among many.
    """
    names = [names_in(story) for story in stories]
    counts = Counter(name for found in names for name in found)
    homes: dict[str, list[int]] = defaultdict(list)
    for number, found in enumerate(names):
        for name in found:
            homes[name].append(number)
    rng = np.random.default_rng((seed, 1))
    rivals = np.full((len(stories), RIVALS), -1, np.int64)
    for number, found in enumerate(names):
        # Sorted, since the order of a set differs between processes.
        shared = sorted(name for name in found if counts[name] > 1)
        drawn = [homes[shared[int(rng.integers(len(shared)))]] for _ in range(RIVALS if shared else 0)]
        others = sorted({int(rng.choice(home)) for home in drawn} - {number})
        rivals[number, : len(others)] = others
    return rivals


def cut_story(
    ids: np.ndarray, ends: np.ndarray, span: int, rng: np.random.Generator, *, spans: int = 16, sentences: float = 0.75
) -> list[tuple[int, int, bool]]:
    """Cut a story into spans, and sentences from all over it.

    Args:
        ids: `[n]` token ids, without an end token.
        ends: `[V]` bool, tokens after which a sentence may end.
        span: S.
        rng: chooses where the first span begins and which sentences are taken.
        spans: at most so many; of a longer story a stretch is taken.
        sentences: passages of sentences per span.

    Returns:
        `(begin, end, whether it is a span)` for each passage; nothing where the story has fewer than two spans.
    """
    if len(ids) < 2 * span:
        return []
    # Any place in the first span, so that borders fall anywhere; of a long story any stretch.
    slack = max(len(ids) - spans * span, min(span, len(ids) - 2 * span))
    start = int(rng.integers(0, slack + 1))
    count = min(spans, (len(ids) - start) // span)
    passages = [(start + i * span, start + (i + 1) * span, True) for i in range(count)]
    borders = start + 1 + np.flatnonzero(ends[ids[start : start + count * span]])
    firsts = rng.permutation(max(0, len(borders) - 1))[: round(sentences * count)]
    for first in sorted(firsts.tolist()):
        fitting = int(np.searchsorted(borders, borders[first] + span - 2, side="right")) - 1
        if fitting > first:
            # Goals are one sentence more often than several.
            last = first + 1 if rng.random() < 0.5 else int(rng.integers(first + 1, fitting + 1))
            if borders[last] - borders[first] >= 5:
                passages.append((int(borders[first]), int(borders[last]), False))
    return passages


def encode_passages(
    model: "LatentModel",
    stories: Sequence[str],
    *,
    seed: int = 0,
    first: int = 0,
    spans: int = 16,
    batch_size: int = 64,
) -> dict[str, Tensor]:
    """Cut and encode stories. Story i depends on `(seed, first + i)` only.

    Sentences are encoded as goals are: from their text, stripped.

    Args:
        stories: texts.
        seed: of the cuts.
        first: number of the first story.
        spans: see `cut_story`.
        batch_size: rows per forward pass.

    Returns:
        `latents` `[P, z_dim]` float32 and, `[P]` each, `story`, `begin`, `end` (int64), `span` (bool): see `Passages`.
    """
    ends = sentence_ends(model.tokenizer)
    rows: list[list[int]] = []
    places: list[tuple[int, int, int, bool]] = []
    for number, story in enumerate(stories):
        ids = np.array(model.to_ids(story), np.int64)
        rng = np.random.default_rng((seed, first + number))
        for begin, end, is_span in cut_story(ids, ends, model.span_tokens, rng, spans=spans):
            row = ids[begin:end].tolist()
            if not is_span:
                row = model.encoded_ids(model.to_text(row).strip())[: model.span_tokens]
            if row:
                rows.append(row)
                places.append((first + number, begin, end, is_span))
    table = torch.tensor(places, dtype=torch.long).reshape(-1, 4)
    latents = model.encode_ids(rows, batch_size=batch_size) if rows else torch.zeros(0, model.latent_config.z_dim)
    return {
        "latents": latents,
        "story": table[:, 0].contiguous(),
        "begin": table[:, 1].contiguous(),
        "end": table[:, 2].contiguous(),
        "span": table[:, 3].bool(),
    }


def join_passages(parts: Sequence[dict[str, Tensor]], rivals: np.ndarray, span_tokens: int) -> Passages:
    """One `Passages` of what `encode_passages` gave, in the order of the stories."""
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("latents", "story", "begin", "end", "span")}
    latents = joined.pop("latents").float()
    return Passages(latents, rivals=rivals, span_tokens=span_tokens, **{k: v.numpy() for k, v in joined.items()})
