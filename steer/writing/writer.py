"""The state of a batch of rows that are written span by span.

`draft` proposes the next latents and commits nothing; `write` commits a span from latents. What a row writes depends on
its own context, latents and seed, never on its neighbours.

Noise is counted as in a search tree: a row's key is its seed, a span's key follows from the key of what is before it.
So a row writes what a search writes along the path of first children.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from steer.errors import GuidanceError, LatentError, TextError
from steer.models.latent_model import LatentModel
from steer.noise import child_key, derive_seed
from steer.writing.classifier_free import Step
from steer.writing.context import check_positions, visible_ids
from steer.writing.limits import Limits
from steer.writing.prefix import open_prefix
from steer.writing.proposals import Drafts, check_drafts, head_drafts
from steer.writing.sampling import SamplingConfig
from steer.writing.span_loop import Draw, Span, WrittenSpans, write_span
from steer.writing.span_texts import blanks_of
from steer.writing.token_sampler import TokenSampler, span_noise


@final
class Writer:
    """Writes spans for a batch of rows. Made by `open_writer`; not shared between threads.

    Args:
        contexts: visible token ids, at least one per row.
        seeds: one per row.
        sampling: settings.
        spans: to make room for.
        with_null: whether classifier-free guidance will be asked for.
        limits: what may not be written.
        drafts: how `draft` proposes latents.
        healed: per row, whether its first word must begin with its blank, which was taken off the context.

    Attributes:
        contexts: the token ids that are visible, per row, exactly as they were fed.
        written: spans so far, per row.
        end: the token that ends a story; None to write on behind it.

    Raises:
        GuidanceError: drafts are to come from a head that the model has not.
        TextError: there is not a seed per context.
    """

    def __init__(
        self,
        model: LatentModel,
        contexts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        sampling: SamplingConfig,
        spans: int,
        with_null: bool,
        limits: Limits,
        drafts: Drafts,
        healed: Sequence[bool],
    ) -> None:
        check_drafts(model, drafts)
        if not contexts or len(contexts) != len(seeds):
            raise TextError(
                f"a writer needs a context and a seed per row; got {len(contexts)} contexts and {len(seeds)} seeds"
            )
        self.model = model
        self.sampling = sampling
        self.with_null = with_null
        self.limits = limits
        self.drafts: Drafts = drafts
        self.contexts = [list(context) for context in contexts]
        self._healed = torch.tensor(list(healed))
        self.written: list[list[Span]] = [[] for _ in contexts]
        self.end: int | None = model.tokenizer.eos_token_id
        self._keys = list(seeds)  # of what is written so far, per row
        with torch.inference_mode():
            self._prefix = open_prefix(model, self.contexts, spans, with_null=with_null)

    @property
    def rows(self) -> int:
        """B, rows of the batch."""
        return len(self.contexts)

    @property
    def ended(self) -> list[bool]:
        """Whether the story has ended, per row."""
        return [bool(spans) and spans[-1].ended for spans in self.written]

    def ids(self, row: int) -> list[int]:
        """All tokens written so far in a row, without its context."""
        return [i for span in self.written[row] for i in span.ids]

    @torch.no_grad()
    def draft(self) -> Tensor:
        """The model's own proposals for the next latents, `[B, z_dim]` float32 on the CPU; nothing is committed."""
        seeds = [derive_seed(key, "draft") for key in self._keys]
        if self.drafts == "head":
            hidden, temperature = self._prefix.hidden(), self.sampling.temperature
            return head_drafts(self.model, hidden, self._visible(), seeds, temperature=temperature)
        with torch.inference_mode():
            written = self._span(self._prefix.draft_step(), seeds)
            self._prefix.rewind()
        return self.model.encode_ids([span.ids for span in written.spans])

    @torch.inference_mode()
    def write(
        self, z: Tensor | None, *, guidance_scale: Tensor | float | None = None, steered: Tensor | None = None
    ) -> list[Span]:
        """Write one span in every row.

        Args:
            z: `[B, z_dim]` float, or None for unguided writing.
            guidance_scale: of classifier-free guidance, a number or `[B]`; None (or 1) does without.
            steered: `[B]` bool, the rows that are written from `z`; the others are written unguided, as with `z` None.
                Default: all.

        Returns:
            One `Span` per row; rows whose story has ended get an empty one.

        Raises:
            LatentError: `z` is of a wrong shape or holds NaN.
            GuidanceError: there is a guidance_scale, but the writer has no null arm.
        """
        if z is not None:
            self._check(z, guidance_scale)
        keys = [child_key(key, 0) for key in self._keys]
        before = self.ended
        written = self._span(self._prefix.step(z, guidance_scale, steered), keys)
        self._prefix.extend(written.tokens)
        self._keys = keys
        spans = [Span((), True) if over else span for over, span in zip(before, written.spans, strict=True)]
        for row, span in enumerate(spans):
            self.written[row].append(span)
        return spans

    def _span(self, step: Step, seeds: Sequence[int]) -> WrittenSpans:
        return write_span(step, self._sampler(seeds), size=self.model.span_tokens, end=self.end)

    def _sampler(self, seeds: Sequence[int]) -> Draw:
        return TokenSampler(
            self.model,
            self.sampling,
            replace(self.limits, whole_words=True) if bool(self._healed.any()) else self.limits,
            span_noise(seeds),
            self._visible,
            at_start=not self.written[0] and (self.limits.whole_words | self._healed),
        )

    def _visible(self) -> list[list[int]]:
        """The visible tokens of each row: its context and spans."""
        return [[*context, *self.ids(row)] for row, context in enumerate(self.contexts)]

    def _check(self, z: Tensor, guidance_scale: Tensor | float | None) -> None:
        if z.shape != (self.rows, self.model.latent_config.z_dim):
            raise LatentError(f"expected latents [{self.rows}, {self.model.latent_config.z_dim}], got {list(z.shape)}")
        if not bool(torch.isfinite(z).all()):
            raise LatentError("latents hold NaN or infinity")
        if not self.with_null and guidance_scale is not None and not bool((torch.as_tensor(guidance_scale) == 1).all()):
            raise GuidanceError(
                f"guidance_scale {guidance_scale} needs a null arm; open the writer with_null=True, or leave it out"
            )


def open_writer(
    model: LatentModel,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    spans: int,
    sampling: SamplingConfig | None = None,
    with_null: bool = False,
    limits: Limits | None = None,
    drafts: Drafts = "write",
) -> Writer:
    """A writer over contexts.

    Args:
        contexts: visible text, or token ids, per row; each is cut on the left to `config.max_context` tokens.
        seeds: one per row; see `steer.noise.derive_seed`.
        spans: how many spans may be written (memory is set aside for them).
        sampling: settings; by default those of `SamplingConfig`.
        with_null: make room for classifier-free guidance.
        limits: what may not be written; by default see `Limits`.
        drafts: how `draft` proposes latents: `write` a span and encode it, or ask the draft `head`.

    Raises:
        GuidanceError: drafts are to come from a head that the model has not.
        TextError: see `steer.writing.context.visible_ids`; or there is not a seed per context, or a context and its
            spans exceed the base's table of positions.
    """
    visible = visible_ids(model, contexts)
    for context in visible:
        check_positions(model, context, spans)
    return Writer(
        model,
        visible,
        seeds=seeds,
        sampling=sampling or SamplingConfig(),
        spans=spans,
        with_null=with_null,
        limits=limits or Limits(),
        drafts=drafts,
        # Behind a blank that was taken off, the next word begins; it does not go on with the last one.
        healed=[bool(blank) for blank in blanks_of(contexts)],
    )
