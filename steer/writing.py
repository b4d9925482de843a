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

from steer.adapters import ROUTER
from steer.arm import Arm
from steer.drawing import Limits, draw_next
from steer.errors import GuidanceError, LatentError, TextError
from steer.guidance import cfg as mix_logits
from steer.positions import check_positions
from steer.prior import Drafts, check_drafts, read_state
from steer.sampling import RowNoise, SamplingConfig, derive_seed


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
        """What a draft head reads of the model, `[B, d]`; see `steer.prior.read_state`."""

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


class InterleavedWriter(Writer):
    """The `interleaved` layout: `[context] z1 x1 z2 x2 ...`.

    Written spans keep their latents, so nothing is ever computed twice.

    With classifier-free guidance the cache holds the conditional rows first and the null rows behind them, and each
    token costs one pass over both.
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
        super().__init__(model, contexts, seeds, sampling, with_null, limits, drafts)
        self.soft = model.latent_config.soft_tokens
        width = self.soft + model.span_tokens
        start = [c or [self.eos] for c in self.contexts]
        self.arm = Arm(model, ROUTER, start, (spans + 1) * width + 1, copies=2 if with_null else 1)
        # The last committed token, not yet in the cache: it rides with the next chunk.
        self._pending: Tensor | None = None

    def _write_draft(self) -> Tensor:
        """Write S tokens with the null latent in the conditional rows, encode them, and rewind the cache."""
        length = self.arm.cache.length
        tokens, _ = self._span(None, None, self.draft_noise)
        self.arm.cache.rewind(length)
        return self._encode(tokens)

    @torch.inference_mode()
    def _hidden(self) -> Tensor:
        """One pass of the conditional rows over the null latent, and the cache is rewound."""
        length, chunk = self.arm.cache.length, self.model.soft(None, self.rows)
        if self._pending is not None:
            chunk = torch.cat([self.arm.embed(self._pending), chunk], dim=1)
        state = self.arm.hidden(chunk)
        self.arm.cache.rewind(length)
        return state

    def _generate(
        self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None = None
    ) -> list[list[int]]:
        if self.with_null:
            # The null arm's cache must grow with the other's, so scale 1 runs both; unguided rows are not extrapolated.
            scale = 1.0 if scale is None or z is None else scale
            if steered is not None:
                scale = torch.where(steered, torch.as_tensor(scale, dtype=torch.float32), 1.0).to(self.model.device)
        tokens, self._pending = self._span(z, scale, self.noise, steered)
        return tokens

    @torch.inference_mode()
    def _span(
        self, z: Tensor | None, scale: Tensor | float | None, noise: RowNoise, steered: Tensor | None = None
    ) -> tuple[list[list[int]], Tensor]:
        both = scale is not None and self.with_null
        soft = self.model.soft(z, self.rows)
        if steered is not None:
            soft = torch.where(steered.to(soft.device)[:, None, None], soft, self.model.soft(None, self.rows))
        if both:
            soft = torch.cat([soft, self.model.soft(None, self.rows)])
        chunk = soft
        if self._pending is not None:
            last = self.arm.embed(self._pending)
            chunk = torch.cat([last.repeat(2, 1, 1) if both else last, soft], dim=1)
        tokens: list[Tensor] = []
        for _ in range(self.model.span_tokens):
            logits = self.arm.forward(chunk)[:, -1].float()
            if both:
                assert scale is not None
                logits = mix_logits(logits[self.rows :], logits[: self.rows], scale)
            ids = self._next(logits, noise, tokens)
            tokens.append(ids)
            chunk = self.arm.embed(ids)
            if both:
                chunk = chunk.repeat(2, 1, 1)
        return torch.stack(tokens, dim=1).tolist(), tokens[-1]


class MiniHFWriter(Writer):
    """BigVAE's layout: `[context][z][span + next span]`. The null arm of guidance is the bare base without `z`.

    MiniHF computes the whole context again for every span. Here the cache of the visible tokens is kept: after a span
    the latent's slot is cut off again and the span's tokens are computed once behind the context, which gives the same
    numbers.
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
        super().__init__(model, contexts, seeds, sampling, with_null, limits, drafts)
        start = [c or [model.tokenizer.bos_token_id or self.eos] for c in self.contexts]
        capacity = (spans + 1) * model.span_tokens + 2
        self.arm = Arm(model, ROUTER, start, capacity)
        self.null = Arm(model, None, start, capacity)
        # The last visible token is held back, so that every span starts with a chunk whose logits predict its first
        # token.
        self._held = torch.tensor([c[-1] for c in start], device=model.device)[:, None]
        self._back()

    def _back(self) -> None:
        for arm in (self.arm, self.null):
            arm.cache.rewind(arm.cache.length - 1)

    @torch.inference_mode()
    def _hidden(self) -> Tensor:
        """One pass of the bare base over the last visible token, and the cache is rewound."""
        length = self.null.cache.length
        state = self.null.hidden(self.null.embed(self._held))
        self.null.cache.rewind(length)
        return state

    @torch.inference_mode()
    def _write_draft(self) -> Tensor:
        """Write S tokens with the bare base (this layout has no null latent), encode them, and rewind the cache."""
        length = self.null.cache.length
        chunk, tokens = self.null.embed(self._held), []
        for _ in range(self.model.span_tokens):
            ids = self._next(self.null.forward(chunk)[:, -1].float(), self.draft_noise, tokens)
            tokens.append(ids)
            chunk = self.null.embed(ids)
        self.null.cache.rewind(length)
        return self._encode(torch.stack(tokens, dim=1).tolist())

    @torch.inference_mode()
    def _generate(
        self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None = None
    ) -> list[list[int]]:
        if z is not None and steered is not None:
            # Scale 0 is the null arm, bit for bit.
            per_row = torch.as_tensor(1.0 if scale is None else scale, dtype=torch.float32, device=self.model.device)
            scale = torch.where(steered.to(self.model.device), per_row, 0.0)
        guided = z is not None and scale is not None and (self.with_null or steered is not None)
        arms = [self.null] if z is None else [self.arm, self.null] if guided else [self.arm]
        starts = [arm.cache.length for arm in (self.arm, self.null)]
        held = self.arm.embed(self._held)
        chunks = [held if arm is self.null else torch.cat([held, self.model.soft(z)], dim=1) for arm in arms]
        tokens: list[Tensor] = []
        for _ in range(self.model.span_tokens):
            logits = [arm.forward(chunk)[:, -1].float() for arm, chunk in zip(arms, chunks, strict=True)]
            mixed = mix_logits(logits[1], logits[0], scale) if guided and scale is not None else logits[0]
            ids = self._next(mixed, self.noise, tokens)
            tokens.append(ids)
            chunks = [self.arm.embed(ids)] * len(arms)
        span = torch.stack(tokens, dim=1)
        for arm, start in zip((self.arm, self.null), starts, strict=True):
            arm.cache.rewind(start)
            arm.forward(arm.embed(torch.cat([self._held, span[:, :-1]], dim=1)))
        self._held = span[:, -1:]
        return span.tolist()


def open_writer(
    model: Any,
    contexts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    spans: int,
    sampling: SamplingConfig | None = None,
    with_null: bool = False,
    limits: Limits | None = None,
    drafts: Drafts = "write",
) -> Writer:
    """A writer for the model's layout.

    Args:
        model: a `LatentModel`.
        contexts: visible token ids per row; each is cut on the left to `config.max_context` tokens.
        seeds: one per row; see `steer.sampling.derive_seed`.
        spans: how many spans may be written (memory is set aside for them).
        sampling: settings; the default is temperature 0.8.
        with_null: keep a null arm, for classifier-free guidance.
        limits: what may not be written; by default everything may.
        drafts: how `draft` proposes latents: `write` a span and encode it, or ask the draft `head`.

    Raises:
        GuidanceError: drafts are to come from a head that the model has not.
        TextError: there is not a seed per context, or a context and its spans exceed the base's table of positions.
    """
    limit = model.latent_config.max_context
    kind = InterleavedWriter if model.latent_config.layout == "interleaved" else MiniHFWriter
    visible = [list(c)[-limit:] for c in contexts]
    for context in visible:
        check_positions(model, context, spans)
    return kind(model, visible, seeds, sampling or SamplingConfig(), spans, with_null, limits or Limits(), drafts)
