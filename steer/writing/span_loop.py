"""The one loop over the tokens of a span. Guided writing, drafts, reconstruction and search engines all run it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steer.writing.classifier_free import Step

# From float32 logits `[B, V]` and the tokens of the span so far (each `[B]`) to the next token ids `[B]`, and their
# log-probabilities `[B]`, nats, where somebody asks for them.
Draw = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Span:
    """A span as it was written.

    Attributes:
        ids: token ids, at most S; with the end token where the story ended.
        ended: whether the story ended in (or before) this span.
    """

    ids: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class WrittenSpans:
    """A span per row.

    Attributes:
        tokens: int64 `[B, T]`, as they were drawn. T is S, or less where all rows ended before.
        spans: the same, cut behind the end token.
        logprobs: float32 `[B]` on the CPU, of what was kept, nats; empty where the draw told none.
    """

    tokens: Tensor
    spans: list[Span]
    logprobs: Tensor = field(default_factory=lambda: torch.zeros(0))


def write_span(step: Step, draw: Draw, *, size: int, end: int | None) -> WrittenSpans:
    """Write `size` tokens per row; stop early where all rows have ended.

    Args:
        step: gives logits.
        draw: chooses tokens.
        size: S.
        end: id of the end token, None where there is none.
    """
    tokens: list[Tensor] = []
    logprobs: list[Tensor] = []
    ended: Tensor | None = None
    while len(tokens) < size:
        ids, logprob = draw(step(tokens[-1] if tokens else None).float(), tokens)
        if logprob is not None:
            logprobs.append(logprob if ended is None else logprob.masked_fill(ended, 0.0))
        tokens.append(ids)
        if end is not None:
            ended = ids == end if ended is None else ended | (ids == end)
            if bool(ended.all()):
                break
    rows = torch.stack(tokens, dim=1)
    total = torch.stack(logprobs, dim=1).sum(1).cpu() if logprobs else torch.zeros(0)
    return WrittenSpans(rows, [cut_span(ids, end) for ids in rows.tolist()], total)


def cut_span(ids: Sequence[int], end: int | None) -> Span:
    """Tokens up to the end of a story, the end token included."""
    if end is not None and end in ids:
        return Span(tuple(ids[: list(ids).index(end) + 1]), True)
    return Span(tuple(ids), False)


def greedy(logits: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, None]:
    """The likeliest token of each row: a `Draw`."""
    return logits.argmax(-1), None
