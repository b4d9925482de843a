"""What rewards look at: a batch of new nodes of a search tree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steer.errors import RewardError
from steer.records import StrictRecord

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel


class Options(StrictRecord):
    """Options of a reward; this one, which has none, serves every reward that takes none. Unknown keys are errors."""


@dataclass(frozen=True, eq=False)
class States:
    """A batch of n states, one per new node. A state is the last span, and what stands before it.

    Attributes:
        model: what wrote the spans; rewards that read text ask its bare base.
        latents: `[n, z]` float32, the encoder's latent of the last span.
        terminals: `[n, z]` float32, the wished-for end of each row; None where nothing is wished for.
        avoid: `[a, z]` (the same for all rows) or `[n, a, z]` float32, what is to be avoided; None for nothing.
        spans: token ids of the last span, at least one; the end token included where the story ended.
        before: token ids written before the last span in this continuation, the context not included.
        contexts: visible token ids of the root.
        ended: whether the story ended in the last span.
        remaining: spans left after this one until the terminal should be there, 0 where the story ended. At the horizon
            it is 0 too, unless the terminal may still come in a later search.
        base_logprobs: gives `[n]` float32, the mean log-probability per token (nats) of the last span under the bare
            base, behind context and `before`. Called only if a reward asks.

    Raises:
        RewardError: a shape, dtype or length does not fit the others.
    """

    model: "LatentModel"
    latents: Tensor
    terminals: Tensor | None
    avoid: Tensor | None
    spans: Sequence[Sequence[int]]
    before: Sequence[Sequence[int]]
    contexts: Sequence[Sequence[int]]
    ended: Sequence[bool]
    remaining: Sequence[int]
    base_logprobs: Callable[[], Tensor]

    def __post_init__(self) -> None:
        if self.latents.ndim != 2:
            raise RewardError(f"latents must be [n, z]; got {list(self.latents.shape)}")
        n, z = self.latents.shape
        if self.terminals is not None and self.terminals.shape != (n, z):
            raise RewardError(f"terminals must be [{n}, {z}] as the latents are; got {list(self.terminals.shape)}")
        if self.avoid is not None:
            shape = self.avoid.shape
            fits = self.avoid.ndim == 2 or (self.avoid.ndim == 3 and shape[0] == n)
            if not fits or shape[-1] != z or shape[-2] == 0:
                raise RewardError(f"avoid must be [a, {z}] or [{n}, a, {z}] with a from 1, or None; got {list(shape)}")
        for name in ("latents", "terminals", "avoid"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.dtype != torch.float32:
                raise RewardError(f"{name} must be float32; got {tensor.dtype}: call .float()")
        for name in ("spans", "before", "contexts", "ended", "remaining"):
            if len(getattr(self, name)) != n:
                raise RewardError(f"{name} must have an entry for each of {n} latents; got {len(getattr(self, name))}")
        for row, span in enumerate(self.spans):
            if len(span) == 0:
                raise RewardError(f"spans[{row}] is empty; a node has at least one token")
            if self.remaining[row] < 0:
                raise RewardError(f"remaining[{row}] is {self.remaining[row]}; it must be 0 or more")

    def __len__(self) -> int:
        return self.latents.shape[0]

    @property
    def final(self) -> Tensor:
        """`[n]` bool: nothing comes after the node, because the story ended or no span remains."""
        pairs = zip(self.ended, self.remaining, strict=True)
        return torch.tensor([bool(ended) or left == 0 for ended, left in pairs], dtype=torch.bool)

    def rows(self, chosen: Sequence[int]) -> "States":
        """These rows alone, in this order; rewards give them what they give them in the whole batch."""
        index = torch.as_tensor(list(chosen), dtype=torch.long)
        return replace(
            self,
            latents=self.latents[index],
            terminals=None if self.terminals is None else self.terminals[index],
            avoid=self.avoid if self.avoid is None or self.avoid.ndim == 2 else self.avoid[index],
            spans=[self.spans[i] for i in chosen],
            before=[self.before[i] for i in chosen],
            contexts=[self.contexts[i] for i in chosen],
            ended=[self.ended[i] for i in chosen],
            remaining=[self.remaining[i] for i in chosen],
            base_logprobs=lambda: self.base_logprobs()[index],
        )

    def need_terminals(self, reward: str) -> Tensor:
        """`terminals`.

        Raises:
            RewardError: there are none; names the reward that needs them.
        """
        if self.terminals is None:
            raise RewardError(f"reward {reward!r} needs terminals; give some, or leave the reward out")
        return self.terminals
