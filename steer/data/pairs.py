"""Context and terminal pairs from stories that a model has not seen: what guided writing is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from steer.errors import CorpusError
from steer.sentences import full_sentences

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel


@dataclass(frozen=True)
class Pair:
    """A story's beginning, and a passage from later in the same story.

    Attributes:
        id: number of the story.
        context: whole sentences, at least 30 tokens where the story has them.
        terminal: whole sentences that fit a span, from the second half.
    """

    id: str
    context: str
    terminal: str


def make_pairs(
    model: "LatentModel",
    stories: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    context_tokens: int = 40,
    fewest: int | None = None,
) -> list[Pair]:
    """Cut `count` pairs from as many stories, chosen at random.

    The terminal shares names and things with its context, so that an unguided ending is right more often than by
    chance; compare with it, not with 1 in 100.

    Args:
        model: a `LatentModel`, for its tokenizer and span.
        stories: whole stories, unseen in training.
        count: pairs wanted.
        seed: of the choice.
        context_tokens: the context ends with the sentence that reaches this.
        fewest: so many will do where stories give no more; by default `count`.

    Raises:
        CorpusError: too few stories are long enough.
    """
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for number in rng.permutation(len(stories)):
        pair = _pair(model, int(number), stories[int(number)], rng, context_tokens)
        if pair is not None:
            pairs.append(pair)
        if len(pairs) == count:
            return pairs
    if len(pairs) >= (needed := count if fewest is None else fewest):
        return pairs
    raise CorpusError(
        f"only {len(pairs)} of {len(stories)} stories are long enough for a context and a terminal; {needed} are "
        "needed: give more text" + (f", or ask for at most {len(pairs)} pairs" if len(pairs) > 1 else "")
    )


def _pair(model: "LatentModel", number: int, story: str, rng: np.random.Generator, context_tokens: int) -> Pair | None:
    sentences = full_sentences(story)
    lengths = [len(model.to_ids(s)) for s in sentences]
    taken, used = 0, 0
    while taken < len(sentences) and used < context_tokens:
        used += lengths[taken]
        taken += 1
    later = range(max(taken + 2, len(sentences) // 2), len(sentences))
    starts = [i for i in later if 8 <= lengths[i] <= model.span_tokens - 2]
    if used > 4 * context_tokens or not starts:
        return None
    first = int(rng.choice(starts))
    last, total = first + 1, lengths[first]
    while last < len(sentences) and total + lengths[last] <= model.span_tokens - 2:
        total += lengths[last]
        last += 1
    terminal = "".join(sentences[first:last]).strip()
    return Pair(str(number), "".join(sentences[:taken]).strip(), " ".join(terminal.split()))
