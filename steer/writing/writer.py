"""Writing spans: a preallocated cache, fused weights, both arms of guidance in one batch, and a lean loop over tokens.

A writer holds the state of a batch of rows. `draft` proposes the next latents (write a span with no latent, encode it,
forget it; or ask the draft head) and `write` commits a span from latents. What a row writes depends on its own context,
latents and seed, never on its neighbours.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steer.errors import GuidanceError, LatentError, TextError
from steer.noise import RowNoise, derive_seed
from steer.writing.limits import Limits, draw_next
from steer.writing.proposals import Drafts, check_drafts, read_state
from steer.writing.sampling import SamplingConfig


@dataclass(frozen=True)
class Span:
    """What one call of `write` wrote in one row.

    Attributes:
        ids: token ids, at most S; with the end token where the story ended.
        ended: whether the story ended in (or before) this span.
    """

    ids: tuple[int, ...]
    ended: bool


class Writer(ABC):
    """Writes spans for a batch of rows. Made by `open_writer`; not shared between threads.

    Attributes:
        model: the `LatentModel`.
        contexts: the token ids that are visible, per row, exactly as they were fed.
        written: spans so far, per row.
    """

    def __init__(
        self,
        model: Any,
        contexts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: SamplingConfig,
        spans: int,
        with_null: bool,
        limits: Limits,
        drafts: Drafts,
    ) -> None:
        check_drafts(model, drafts)
        if not contexts or len(contexts) != len(seeds):
            raise TextError(
                f"a writer needs a context and a seed per row; got {len(contexts)} contexts and {len(seeds)} seeds"
            )
        self.model = model
        self.sampling = sampling
        self.with_null = with_null
        self.drafts: Drafts = drafts
        self.contexts = [list(c) for c in contexts]
        self.written: list[list[Span]] = [[] for _ in contexts]
        self.noise = RowNoise(tuple(derive_seed(s, "write") for s in seeds))
        self.draft_noise = RowNoise(tuple(derive_seed(s, "draft") for s in seeds))
        self.eos = model.tokenizer.eos_token_id
        self.steps = 0
        self.limits = limits
        self._open(spans)

    @abstractmethod
    def _open(self, spans: int) -> None:
        """Read the contexts into caches that have room for so many spans."""

    @property
    def rows(self) -> int:
        """B, rows of the batch."""
        return len(self.contexts)

    @property
    def ended(self) -> list[bool]:
        """Whether the story has ended, per row."""
        return [bool(spans) and spans[-1].ended for spans in self.written]

    @torch.no_grad()
    def draft(self) -> Tensor:
        """The model's own proposals for the next latents, `[B, z_dim]` float32 on the CPU; nothing is committed."""
        if self.drafts == "head":
            states = read_state(self.model, self._hidden(), self._before([]))
            return self.model.prior.sample(states, self.draft_noise, self.steps, temperature=self.sampling.temperature)
        return self._write_draft()

    @abstractmethod
    def _write_draft(self) -> Tensor:
        """Drafts by writing: S tokens that no latent steers, encoded and forgotten."""

    @abstractmethod
    def _hidden(self) -> Tensor:
        """What a draft head reads of the model, `[B, d]`; see `steer.heads.prior.read_state`."""

    @abstractmethod
    def _generate(
        self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None = None
    ) -> list[list[int]]:
        """Commit S tokens per row; returns them."""

    @torch.no_grad()
    def write(
        self, z: Tensor | None, *, scale: Tensor | float | None = None, steered: Tensor | None = None
    ) -> list[Span]:
        """Write one span in every row.

        Args:
            z: `[B, z_dim]` float, or None for unguided writing.
            scale: strength of classifier-free guidance, a number or `[B]`; None (or 1) does without.
            steered: `[B]` bool, the rows that are written from `z`; the others are written unguided, as with `z` None.
                Default: all.

        Returns:
            One `Span` per row; rows whose story has ended get an empty one.

        Raises:
            LatentError: `z` is of a wrong shape or holds NaN.
            GuidanceError: there is a scale, but the writer has no null arm.
        """
        if z is not None:
            if z.shape != (self.rows, self.model.latent_config.z_dim):
                raise LatentError(
                    f"expected latents [{self.rows}, {self.model.latent_config.z_dim}], got {list(z.shape)}"
                )
            if not bool(torch.isfinite(z).all()):
                raise LatentError("latents hold NaN or infinity")
            if not self.with_null and scale is not None and not bool((torch.as_tensor(scale) == 1).all()):
                raise GuidanceError(
                    f"scale {scale} needs a null arm; open the writer with with_null=True, or leave the scale out"
                )
        before = self.ended
        tokens = self._generate(z, scale, steered)
        self.steps += 1
        spans = []
        for row, ids in enumerate(tokens):
            span = Span((), True) if before[row] else self._cut(ids)
            self.written[row].append(span)
            spans.append(span)
        return spans

    def ids(self, row: int) -> list[int]:
        """All tokens written so far in a row, without its context."""
        return [i for span in self.written[row] for i in span.ids]

    def _cut(self, ids: list[int]) -> Span:
        if self.eos in ids:
            return Span(tuple(ids[: ids.index(self.eos) + 1]), True)
        return Span(tuple(ids), False)

    def _encode(self, rows: list[list[int]]) -> Tensor:
        """Latents of drafted tokens, cut at their story's end."""
        return self.model.encode_ids([list(self._cut(ids).ids) for ids in rows])

    def _next(self, logits: Tensor, noise: RowNoise, tokens: Sequence[Tensor]) -> Tensor:
        """Draw the next token `[B]` of a span of which `tokens` are there."""
        ids, _ = draw_next(
            self.model,
            logits,
            noise,
            self.steps * 4096 + len(tokens),
            sampling=self.sampling,
            limits=self.limits,
            at_start=self.steps == 0 and not tokens,
            before=lambda: self._before(tokens),
        )
        return ids

    def _before(self, tokens: Sequence[Tensor]) -> list[list[int]]:
        """The visible tokens of each row: context, spans, and `tokens` of the next span."""
        span = torch.stack(list(tokens), dim=1).tolist() if tokens else [[]] * self.rows
        return [[*self.contexts[row], *self.ids(row), *span[row]] for row in range(self.rows)]
