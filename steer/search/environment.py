"""What a search is about: how nodes come about and what they are worth. Policies and driver know nothing else of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from steer.search.tree import Tree


@dataclass(frozen=True, slots=True)
class Request:
    """Write child `index` of `parent` by action `action` of the menu."""

    parent: int
    index: int
    action: int = 0


class Environment(ABC):
    """Adds children to a tree."""

    @abstractmethod
    def costs(self, tree: Tree, requests: Sequence[Request], drafted: set[int]) -> list[int]:
        """Tokens that each request is charged with if all before it are carried out.

        Args:
            tree: holds the parents.
            requests: for children that may be there already: a search that goes on is charged as if it had never
                stopped.
            drafted: nodes whose drafts are paid for; those that these requests pay for are added.
        """

    @abstractmethod
    def expand(self, tree: Tree, requests: Sequence[Request]) -> list[int]:
        """Carry out requests, none of which is in the tree yet; returns the new nodes in the order of the requests.

        A child must be a function of its parent and its index, whatever else is among the requests. Nothing is added
        where this raises.
        """

    def node_tokens(self, tree: Tree, fanout: float) -> float:
        """Greatest mean number of tokens per node where a policy asks for at least `fanout` children of a node."""
        return float(tree.span_tokens)
