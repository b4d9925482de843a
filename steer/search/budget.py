"""What a search may spend, what it has spent, and how it ended."""

from dataclasses import dataclass, field
from typing import Literal

from steer.errors import SearchError
from steer.text import is_number

End = Literal["finished", "short", "out_of_tokens", "out_of_nodes", "out_of_time", "interrupted"]


@dataclass(frozen=True)
class Budget:
    """What a search may spend per root. Each is a hard ceiling; None is no limit, but one of them must be there.

    Attributes:
        tokens: generated tokens, drafts included.
        nodes: spans, drafts not included.
        seconds: of wall time, for all roots together since they run side by side. Checked between batches.

    Raises:
        SearchError: at construction, for a limit that is not above 0, or without any.
    """

    tokens: int | None = None
    nodes: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        limits = [x for x in (self.tokens, self.nodes, self.seconds) if x is not None]
        if not limits:
            raise SearchError("a search needs a budget: give tokens, nodes or seconds")
        if not all(is_number(x) and x > 0 for x in limits):
            raise SearchError(f"a budget is above 0, in numbers; got {self}")


@dataclass
class Spent:
    """What a search has spent on one root.

    Attributes:
        tokens: generated, drafts included.
        nodes: spans added to the tree.
        seconds: until this root was done, counted from the start of the run.
    """

    tokens: int = 0
    nodes: int = 0
    seconds: float = 0.0


@dataclass
class Outcome:
    """How the search on one root ended.

    Attributes:
        root: its node.
        status: `finished` where the policy was done and there is a complete node; `short` where it was done without
            one, as its budget was too small for what it plans; else what stopped it. What was found by then is in the
            tree.
        spent: the cost.
    """

    root: int
    status: End = "finished"
    spent: Spent = field(default_factory=Spent)
