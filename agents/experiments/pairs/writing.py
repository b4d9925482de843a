"""What an arm is given and gives back, and how it asks for text: the one place that calls `steer`'s writing.

An arm's options make its `WritingConfig` and `SearchConfig` (`Options.writing`, `SearchOptions.search`); arms say
besides towards what they pull.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from steer.data.pairs import Pair
from steer.latents.pull import Pull
from steer.models.latent_model import LatentModel
from steer.search.config import SearchConfig
from steer.search.searched import write_searched
from steer.writing.config import WritingConfig
from steer.writing.guided import write_guided


@dataclass(frozen=True)
class Task:
    """What one call of an arm has to write.

    Attributes:
        model: writes and encodes.
        pairs: contexts, and the terminals wished for; one row each.
        every: all pairs of the experiment, for an arm that has to know what its terminals are told from.
        seeds: one per row, the same in all arms.
        config: how all arms write, before their options: without guidance.
        rewards: settings for `steer.rewards.RewardsConfig`, where the arm searches; None: its default.
        budget: tokens that may be generated per row, as a multiple of `spans * span_tokens`; None where the method has
            no budget.
    """

    model: LatentModel
    pairs: Sequence[Pair]
    every: Sequence[Pair]
    seeds: Sequence[int]
    config: WritingConfig
    rewards: Mapping[str, Any] | None = None
    budget: float | None = None

    def terminals(self) -> Tensor:
        """Latents of the terminals, `[n, z_dim]` float32; of one longer than a span the first span counts."""
        return self.model.encode([pair.terminal for pair in self.pairs], long="truncate")

    @property
    def spans(self) -> int:
        """How many to write at most."""
        return self.config.spans

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


def write_pulled(
    task: Task,
    pulls: Sequence[Pull],
    config: WritingConfig,
    *,
    contexts: Sequence[Any] | None = None,
    encodes: int = 0,
) -> list[Sample]:
    """Write a text per pair with pulls.

    Args:
        task: what to write.
        pulls: towards what, and how hard.
        config: how.
        contexts: ids instead of the pairs' contexts.
        encodes: spans that the encoder has read for each text before.
    """
    contexts = [pair.context for pair in task.pairs] if contexts is None else contexts
    rows = write_guided(task.model, contexts, pulls=pulls, seeds=list(task.seeds), config=config)
    size, samples = task.model.span_tokens, []
    for row in rows:
        # Drafts that were made for other rows after this one's story had ended are not its cost. A draft takes an
        # encoding in either way: of what was written for it, or of what is visible last.
        count = int((row.drafts[: math.ceil(len(row.ids) / size)] != 0).any(dim=1).sum())
        tokens = len(row.ids) + (count * size if config.drafts == "write" else 0)
        samples.append(Sample(row.text, row.spans, row.ids, row.ended, tokens, encodes + count))
    return samples


def write_best(task: Task, config: WritingConfig, search: SearchConfig) -> list[Sample]:
    """Write a text per pair by search towards its terminal."""
    contexts, terminals = [pair.context for pair in task.pairs], task.terminals()
    rows = write_searched(
        task.model, contexts, terminals=terminals, seeds=list(task.seeds), config=config, search=search
    )
    samples = []
    for row in rows:
        details = {"status": row.status, "finished": row.finished, "nodes": row.spent.nodes, "value": row.value}
        # Each span that was generated, a draft or a node, is encoded once; and the terminal. A draft by head encodes
        # what is visible last.
        encodes = 1 + row.spent.tokens // task.model.span_tokens
        if config.drafts == "head":
            encodes += int((row.tree.has_draft & (row.tree.root == row.tree.root[row.node])).sum())
        details["components"] = dict(row.components)
        samples.append(Sample(row.text, row.spans, row.ids, row.ended, row.spent.tokens, encodes, details=details))
    return samples
