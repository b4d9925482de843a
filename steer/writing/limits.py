"""Drawing the next token of a span: what may not be drawn, what was written before, and a row's own noise."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from steer.noise import RowNoise
from steer.writing.sampling import SamplingConfig, sample_with

PENALTY_WINDOW = 256  # tokens on which a repetition penalty looks back
NAME_WINDOW = 12  # tokens in which a name at the beginning of a line is looked for
NAME = re.compile(r"\n\s*[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,2}\Z")
LABEL = re.compile(r"\n\s*[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,2}:")


@final
@dataclass(frozen=True)
class Limits:
    """What may not be written.

    Attributes:
        may_end: whether a story may end, that is whether the end token may be drawn.
        whole_words: whether the first token must not go on inside the context's last word, as in "Max" + "ed".
        plays: whether prose may turn into a play, with a line that begins with a name and a colon, where none of the
            row's lines did before. A model that was trained on plays does that now and then.
    """

    may_end: bool = True
    whole_words: bool = False
    plays: bool = True


def draw_next(
    model: Any,
    logits: Tensor,
    noise: RowNoise,
    step: int,
    *,
    sampling: SamplingConfig,
    limits: Limits,
    at_start: Tensor | bool,
    before: Callable[[], Sequence[Sequence[int]]],
) -> tuple[Tensor, Tensor]:
    """Draw one token per row.

    Args:
        model: a `LatentModel`.
        logits: float32 `[B, V]`; they may be changed in place.
        noise: of the rows.
        step: of the noise; each token of a row has its own.
        sampling: settings.
        limits: what may not be drawn.
        at_start: bool, of all rows or `[B]`: whether this token follows the context's last word.
        before: gives the visible tokens of each row so far; asked only where a limit or a penalty looks at them.

    Returns:
        Token ids, int64 `[B]`; and the logits `[B, V]`, those that the limits forbid at minus infinity.

    Raises:
        SamplingError: logits hold NaN or infinity, or nothing may be drawn.
    """
    if not limits.may_end and model.tokenizer.eos_token_id is not None:
        logits[:, model.tokenizer.eos_token_id] = -torch.inf
    if limits.whole_words and at_start is not False:
        start = torch.as_tensor(at_start, device=logits.device).reshape(-1, 1)
        logits = logits.masked_fill(start & model.inside_words, -torch.inf)
    rows = [] if limits.plays and sampling.repetition_penalty == 1 else before()
    if not limits.plays:
        named = torch.tensor([_begins_play(model, row) for row in rows], device=logits.device)
        logits = logits.masked_fill(named[:, None] & model.colons, -torch.inf)
    gumbel = noise.gumbel(step, logits.shape[1], device=logits.device) if sampling.temperature else None
    previous = mask = None
    if sampling.repetition_penalty != 1:
        lists = [list(row[-PENALTY_WINDOW:]) for row in rows]
        width = max(map(len, lists))
        padded = [[*x, *[-1] * (width - len(x))] for x in lists]
        previous = torch.tensor(padded, dtype=torch.long, device=logits.device)
        mask = previous >= 0
    return sample_with(sampling, logits, noise=gumbel, previous=previous, mask=mask), logits


def _begins_play(model: Any, row: Sequence[int]) -> bool:
    """Whether a colon would make the last line of a row the first one of a play: a name so far, and none before."""
    end = model.tokenizer.decode(list(row[-NAME_WINDOW:]))
    if NAME.search(end if len(row) > NAME_WINDOW else f"\n{end}") is None:
        return False
    return LABEL.search("\n" + model.tokenizer.decode(list(row[-PENALTY_WINDOW:]))) is None
