"""Writing children of many nodes at once: what every engine does, whatever it keeps between expansions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steer.errors import LatentError
from steer.models.latent_model import LatentModel
from steer.search.tree import Tree
from steer.writing.classifier_free import Step, guided
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from steer.writing.span_loop import Draw as TokenDraw
from steer.writing.span_loop import write_span
from steer.writing.token_sampler import PENALTY_WINDOW, TokenSampler, span_noise


@dataclass(frozen=True)
class SpanRequest:
    """Spans to write, R of them; equal parents stand side by side.

    Attributes:
        parents: nodes behind which to write.
        seeds: one per row; a row's tokens depend on its own and on nothing else of the batch.
        z: `[R, z_dim]` float32, or None where nothing steers.
        steered: bool `[R]`, the rows that are written from `z`; the others are written from the null latent.
        scales: float32 `[R]`, strength of classifier-free guidance; needs an engine with a null arm.
        temperatures: float32 `[R]`, or None for that of the sampling settings.
    """

    parents: Sequence[int]
    seeds: Sequence[int]
    z: Tensor | None = None
    steered: Tensor | None = None
    scales: Tensor | None = None
    temperatures: Tensor | None = None

    @property
    def from_latent(self) -> Tensor:
        """Bool `[R]` on the CPU: which rows are written from their latent, the others from the null latent."""
        if self.z is None:
            return torch.zeros(len(self.parents), dtype=torch.bool)
        return torch.ones(len(self.parents), dtype=torch.bool) if self.steered is None else self.steered.cpu()

    def rows(self, chosen: Sequence[int]) -> "SpanRequest":
        """Some of the rows, in that order."""

        def part(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[list(chosen)]

        return SpanRequest(
            [self.parents[row] for row in chosen],
            [self.seeds[row] for row in chosen],
            part(self.z),
            part(self.steered),
            part(self.scales),
            part(self.temperatures),
        )


@dataclass(frozen=True)
class SpanSample:
    """What was written for an order.

    Attributes:
        spans: token ids per row, cut behind the end token.
        ended: whether the story ended, per row.
        logprobs: float32 `[R]`, log-probability of what is kept, under the (guided, tempered) distribution before
            filters, nats.
        states: what the engine needs in order to keep the rows as nodes, see `Engine.keep`.
    """

    spans: list[list[int]]
    ended: list[bool]
    logprobs: Tensor
    states: Any = None


class Engine(ABC):
    """Writes spans behind nodes of a tree, and reads spans under the bare base.

    Attributes:
        tree: nodes are read from it, and never changed.
        kind: `paged` or `prefill`, how prefixes are kept.
        reason: why it is not `paged`; empty where it is.
    """

    kind: str
    reason: str = ""

    def __init__(
        self,
        model: LatentModel,
        tree: Tree,
        *,
        sampling: SamplingConfig,
        with_null: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.model, self.tree = model, tree
        self.sampling, self.with_null = sampling, with_null
        self.limits = limits or Limits()
        self.eos = model.tokenizer.eos_token_id

    @property
    @abstractmethod
    def forward_tokens(self) -> int:
        """Positions computed so far in order to write and to rebuild, all arms; without `base_logprobs`."""

    @abstractmethod
    def write(self, order: SpanRequest, *, draft: bool = False) -> SpanSample:
        """Write one span per row. A draft is for looking at only: it cannot be kept, and runs without a null arm."""

    def commit(self, draw: SpanSample, rows: Sequence[int], nodes: Sequence[int]) -> None:
        """Keep rows of a draw as the states of nodes that were just added to the tree."""
        return None

    @abstractmethod
    def hidden(self, parents: Sequence[int]) -> Tensor:
        """What a draft head reads of the model behind nodes, `[P, d]`; see `steer.heads.prior.read_state`."""

    @abstractmethod
    def base_logprobs(self, parents: Sequence[int], spans: Sequence[Sequence[int]]) -> Tensor:
        """Mean log-probability per token `[R]` (float32, nats) of spans behind nodes under the bare, unsteered base.

        The base sees the context and the tokens written so far, and no latent.
        """

    # -- what engines share ------------------------------------------------------------------------------------------

    def _write_span(self, order: SpanRequest, step: Step) -> SpanSample:
        """SpanSample the rows of an order from the logits of a step."""

        def checked(ids: Tensor | None) -> Tensor:
            logits = step(ids)
            if not bool(torch.isfinite(logits).all()):
                raise LatentError("the model gave NaN or infinite logits; the dtype may be too narrow (try float32)")
            return logits

        written = write_span(checked, self._sampler(order), size=self.tree.span_tokens, end=self.eos)
        return SpanSample(
            [list(span.ids) for span in written.spans], [s.ended for s in written.spans], written.logprobs
        )

    def _sampler(self, order: SpanRequest) -> TokenDraw:
        return TokenSampler(
            self.model,
            self.sampling,
            self.limits,
            span_noise(order.seeds),
            lambda: self._visible(order.parents),
            at_start=torch.tensor([self.tree.depth[parent] == 0 for parent in order.parents]),
            temperatures=order.temperatures,
            with_logprobs=True,
        )

    def _guided(self, order: SpanRequest, step: Step, null: Step | None = None) -> Step:
        """A step under classifier-free guidance by an order's scales; see `steer.writing.classifier_free.guided`."""
        return guided(step, 1.0 if order.scales is None else order.scales.to(self.model.device), null)

    def _visible(self, parents: Sequence[int]) -> list[list[int]]:
        """The last visible tokens of each row: of context and path, as many as a penalty or limit looks at."""
        paths = {p: self.tree.visible(p)[-PENALTY_WINDOW:] for p in set(parents)}
        return [paths[p] for p in parents]
