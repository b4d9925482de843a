"""What an arm is given, and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from steer.data.pairs import Pair
from steer.writing.sampling import SamplingConfig


@dataclass(frozen=True)
class Task:
    """What one call of an arm has to write.

    Attributes:
        model: a `LatentModel`.
        pairs: contexts, and the terminals wished for; one row each.
        every: all pairs of the experiment, for an arm that has to know what its terminals are told from.
        seeds: one per row, the same in all arms.
        spans: how many to write at most.
        sampling: how tokens are drawn.
        rewards: settings for `steer.rewards.RewardsConfig`, where the arm searches; None: its default.
        budget: tokens that may be generated per row, as a multiple of `spans * span_tokens`; None where the method has
            no budget.
    """

    model: Any
    pairs: Sequence[Pair]
    every: Sequence[Pair]
    seeds: Sequence[int]
    spans: int
    sampling: SamplingConfig
    rewards: Mapping[str, Any] | None = None
    budget: float | None = None

    def terminals(self) -> Tensor:
        """Latents of the terminals, `[n, z_dim]` float32; of one longer than a span the first span counts."""
        return self.model.encode([pair.terminal for pair in self.pairs], long="truncate")

    @property
    def plain_tokens(self) -> int:
        """Tokens of one row without any search: what a budget of 1 buys."""
        return self.spans * self.model.span_tokens


@dataclass(frozen=True)
class Sample:
    """What an arm wrote for one pair, and what that cost.

    Attributes:
        text, spans: the written part, whole and span by span.
        ids: its token ids, special tokens included.
        ended: whether the story ended.
        tokens: generated for it in all, drafts and discarded candidates included.
        encodes: spans that the encoder read for it.
        seconds: of wall time, its share of what was written together; set by the runner.
        details: what else the method has to tell, such as a search's value; plain JSON.
    """

    text: str
    spans: tuple[str, ...]
    ids: tuple[int, ...]
    ended: bool
    tokens: int
    encodes: int
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
