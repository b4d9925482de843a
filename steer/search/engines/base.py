"""Writing children of many nodes at once: what every engine does, whatever it keeps between expansions."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steer.errors import LatentError
from steer.latents.mixing import classifier_free_guidance
from steer.noise import RowNoise, derive_seed
from steer.search.tree import Tree
from steer.writing.limits import PENALTY_WINDOW, Limits, draw_next
from steer.writing.sampling import SamplingConfig


@dataclass(frozen=True)
class Order:
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

    def rows(self, chosen: Sequence[int]) -> "Order":
        """Some of the rows, in that order."""

        def part(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[list(chosen)]

        return Order(
            [self.parents[row] for row in chosen],
            [self.seeds[row] for row in chosen],
            part(self.z),
            part(self.steered),
            part(self.scales),
            part(self.temperatures),
        )


@dataclass(frozen=True)
class Draw:
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
        model: a `LatentModel`.
        tree: nodes are read from it, and never changed.
        kind: `paged` or `prefill`, how prefixes are kept.
        reason: why it is not `paged`; empty where it is.
    """

    kind: str
    reason: str = ""

    def __init__(
        self, model: Any, tree: Tree, *, sampling: SamplingConfig, with_null: bool = False, limits: Limits | None = None
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
    def write(self, order: Order, *, draft: bool = False) -> Draw:
        """Write one span per row. A draft is for looking at only: it cannot be kept, and runs without a null arm."""

    def keep(self, draw: Draw, rows: Sequence[int], nodes: Sequence[int]) -> None:
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

    def _decode(self, order: Order, logits: Tensor, forward: Any, arms: int) -> Draw:
        """Draw S tokens per row.

        Args:
            order: what to write.
            logits: `[arms * R, V]` for the first token, conditional rows first.
            forward: from token ids `[R]` to the next logits `[arms * R, V]`.
            arms: 2 with a null arm.
        """
        rows, size = len(order.parents), self.tree.span_tokens
        noise = RowNoise(tuple(derive_seed(seed, "write") for seed in order.seeds))
        scales = None if order.scales is None else order.scales.to(logits.device)
        at_root = torch.tensor([self.tree.depth[p] == 0 for p in order.parents], device=logits.device)
        tokens, logprobs = [], []
        ended = torch.zeros(rows, dtype=torch.bool, device=logits.device)
        for step in range(size):
            mixed = logits[:rows].float()
            if arms == 2:
                mixed = classifier_free_guidance(logits[rows:].float(), mixed, 1.0 if scales is None else scales)
            ids, logprob = self._next(mixed, order, noise, tokens, at_root)
            logprobs.append(logprob.masked_fill(ended, 0.0))
            tokens.append(ids)
            if self.eos is not None:
                ended |= ids == self.eos
            if step + 1 == size or bool(ended.all()):
                break
            logits = forward(ids)
        spans, cut = [], ended.tolist()
        for row, stopped in zip(torch.stack(tokens, dim=1).tolist(), cut, strict=True):
            spans.append(row[: row.index(self.eos) + 1] if stopped else row)
        return Draw(spans, cut, torch.stack(logprobs, dim=1).sum(1).cpu())

    def _next(
        self, logits: Tensor, order: Order, noise: RowNoise, tokens: list[Tensor], at_root: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token ids `[R]`, and their log-probabilities."""
        if not bool(torch.isfinite(logits).all()):
            raise LatentError("the model gave NaN or infinite logits; the dtype may be too narrow (try float32)")
        sampling = self.sampling
        if order.temperatures is not None:
            # A temperature per row: divided here, so that what follows draws at temperature 1.
            logits = logits / order.temperatures.to(logits.device)[:, None]
            sampling = dataclasses.replace(sampling, temperature=1.0)
        ids, logits = draw_next(
            self.model,
            logits,
            noise,
            len(tokens),
            sampling=sampling,
            limits=self.limits,
            at_start=at_root if not tokens else False,
            before=lambda: self._before(order.parents, tokens),
        )
        tempered = logits / sampling.temperature if sampling.temperature else logits
        return ids, tempered.gather(1, ids[:, None])[:, 0] - tempered.logsumexp(1)

    def _before(self, parents: Sequence[int], tokens: list[Tensor]) -> list[list[int]]:
        """The visible tokens that a repetition penalty looks at, per row: context, path, and `tokens` of the span."""
        span = torch.stack(tokens, dim=1).tolist() if tokens else [[]] * len(parents)
        paths = {p: [*self.tree.context(p), *self.tree.ids(p)][-PENALTY_WINDOW:] for p in set(parents)}
        return [[*paths[p], *span[row]] for row, p in enumerate(parents)]
