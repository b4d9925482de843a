"""Drawing the tokens of a span: limits, penalties and filters on the logits, and a row's own noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import final

import torch
from torch import Tensor

from steer.models.latent_model import LatentModel
from steer.noise import RowNoise, derive_seed
from steer.writing.limits import Limits, begins_script
from steer.writing.sampling import SamplingConfig, sample_with

PENALTY_WINDOW = 256  # tokens on which a repetition penalty looks back

Rows = Sequence[Sequence[int]]


def span_noise(seeds: Sequence[int]) -> RowNoise:
    """The noise of spans with these seeds, one per row; a span's token t takes step t."""
    return RowNoise(tuple(derive_seed(seed, "write") for seed in seeds))


@final
@dataclass(frozen=True)
class TokenSampler:
    """Draws the tokens of one span per row; a `steer.writing.span_loop.Draw`.

    Attributes:
        model: whose tokens they are.
        sampling: settings.
        limits: what may not be drawn.
        noise: of the rows.
        visible: gives the visible tokens of each row before the span; asked once, and only where a limit or a penalty
            looks at them.
        at_start: bool, of all rows or `[B]`: whether the span's first token follows the context's last word.
        temperatures: float32 `[B]`, instead of that of `sampling`.
        with_logprobs: whether to tell log-probabilities, under the tempered distribution before filters.

    Raises:
        SamplingError: when called, if logits hold NaN or infinity, or nothing may be drawn.
    """

    model: LatentModel
    sampling: SamplingConfig
    limits: Limits
    noise: RowNoise
    visible: Callable[[], Rows] = field(repr=False)
    at_start: Tensor | bool = False
    temperatures: Tensor | None = None
    with_logprobs: bool = False

    @cached_property
    def _before(self) -> Rows:
        return self.visible()

    def __call__(self, logits: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Token ids `[B]`, and their log-probabilities `[B]` where they are asked for.

        Args:
            logits: float32 `[B, V]`; they may be changed in place.
            tokens: of the span so far, each `[B]`.
        """
        sampling = self.sampling
        if self.temperatures is not None:
            # A temperature per row: divided here, so that what follows draws at temperature 1.
            logits = logits / self.temperatures.to(logits.device)[:, None]
            sampling = replace(sampling, temperature=1.0)
        rows = cache(lambda: self._rows(tokens))  # made once, for the limits and the penalty
        logits = self._limited(logits, tokens, rows)
        previous = mask = None
        if sampling.repetition_penalty != 1:
            previous, mask = self._previous(rows(), logits.device)
        step, vocabulary = len(tokens), logits.shape[1]
        noise = self.noise.gumbel(step, vocabulary, device=logits.device) if sampling.temperature else None
        ids = sample_with(sampling, logits, noise=noise, previous=previous, mask=mask)
        if not self.with_logprobs:
            return ids, None
        tempered = logits / sampling.temperature if sampling.temperature else logits
        return ids, tempered.gather(1, ids[:, None])[:, 0] - tempered.logsumexp(1)

    def _limited(self, logits: Tensor, tokens: Sequence[Tensor], rows: Callable[[], list[list[int]]]) -> Tensor:
        """Logits with marks that are no text, and what the limits forbid, at minus infinity."""
        model, limits = self.model, self.limits
        logits.masked_fill_(model.control_tokens, -torch.inf)
        if not limits.may_end and model.tokenizer.eos_token_id is not None:
            logits[:, model.tokenizer.eos_token_id] = -torch.inf
        if limits.whole_words and not tokens and self.at_start is not False:
            start = torch.as_tensor(self.at_start, device=logits.device).reshape(-1, 1)
            logits = logits.masked_fill(start & model.continuation_tokens, -torch.inf)
        if not limits.plays:
            begins = [begins_script(model.tokenizer, row) for row in rows()]
            named = torch.tensor(begins, device=logits.device)
            logits = logits.masked_fill(named[:, None] & model.colons, -torch.inf)
        return logits

    def _rows(self, tokens: Sequence[Tensor]) -> list[list[int]]:
        """All visible tokens of each row, those of the span included."""
        span = torch.stack(list(tokens), dim=1).tolist() if tokens else [[]] * len(self._before)
        return [[*before, *own] for before, own in zip(self._before, span, strict=True)]

    def _previous(self, rows: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tokens that a penalty looks at, int64 `[B, T]`, and which of them there are."""
        lists = [row[-PENALTY_WINDOW:] for row in rows]
        width = max(map(len, lists))
        previous = torch.tensor([[*row, *[-1] * (width - len(row))] for row in lists], dtype=torch.long, device=device)
        return previous, previous >= 0
