"""Rewards that look at tokens: how likely the base finds the last span, and how much of it was there before."""

from collections.abc import Sequence

import pydantic
import torch
from torch import Tensor

from steer.errors import RewardError
from steer.rewards.states import Options, States


def fluency(states: States, options: Options) -> Tensor:
    """Mean log-probability per token of the last span under the bare base: `[n]` float32, nats, at most 0.

    It is what `states.base_logprobs` gives.

    Raises:
        RewardError: that is not `[n]`.
    """
    logprobs = states.base_logprobs()
    if logprobs.shape != (len(states),):
        raise RewardError(f"base_logprobs must give [{len(states)}]; got {list(logprobs.shape)}")
    return logprobs


class RepetitionOptions(Options):
    """Options of `repetition`.

    Attributes:
        n: tokens of an n-gram.
        context: whether what the context says counts as said before; else only what was written since.
    """

    n: int = pydantic.Field(default=4, ge=1)
    context: bool = True


def repetition(states: States, options: RepetitionOptions) -> Tensor:
    """Share of the span's n-grams that occurred before: `[n]` float32 in [0, 1].

    An n-gram belongs to the span in which it ends, so that a loop across the border of two spans is seen. It occurred
    before if it ended earlier in context, `before` or span; it may overlap with itself. Weight it negatively.
    """
    shares = []
    for context, before, span in zip(states.contexts, states.before, states.spans, strict=True):
        history = [*(context if options.context else ()), *before]
        shares.append(_repeated_share(history, span, options.n))
    return torch.tensor(shares, dtype=torch.float32)


def _repeated_share(history: Sequence[int], span: Sequence[int], n: int) -> float:
    tokens = [*history, *span]
    # Ends of n-grams are counted from the first that is whole; where none of the span's is, nothing is repeated.
    grams = [tuple(tokens[i - n : i]) for i in range(n, len(tokens) + 1)]
    own = min(len(span), len(grams))
    seen = set(grams[: len(grams) - own])
    repeated = 0
    for gram in grams[len(grams) - own :]:
        repeated += gram in seen
        seen.add(gram)
    return repeated / own if own else 0.0
