"""A forest of spans as flat named arrays: many roots in one arena, preallocated and doubled when full.

Node `n` is row `n` of every array. A root stands for a visible context; every other node is one span of S tokens behind
its parent. Nodes are never removed, so ids stay valid and a search can be looked at, saved and gone on with.
Source of the shape: `mctx/_src/tree.py` (struct of arrays), with sibling links so that nodes can be widened.
"""

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from steer.errors import SearchError
from steer.noise import child_key
from steer.search.fields import FIELDS, NONE, STATISTICS, Columns, Status
from steer.search.links import check_links

_COMPLETE = int(Status.COMPLETE)  # a plain number: policies ask for it all the time


@final
class Tree(Columns):
    """The arena.

    Args:
        span_tokens: S.
        z_dim: width of a latent.
        components: names of the reward components, C of them.
        capacity: nodes to make room for at first.

    Attributes:
        size: nodes in use, N; arrays are longer, read `array[:tree.size]`.
        roots: ids of the roots, in order.
        contexts: visible token ids of each root.
        horizons: spans wanted behind each root; a node at that depth is complete.
        deadlines: depth at which each root's terminal should be there, at least its horizon.
        parent, root, depth, index: int32; index counts the children of a parent from 0.
        action: int32, row of the menu by which the span was written.
        key: int64, seed of all randomness of the node, a function of (root's seed, path of child indices) alone.
        status: int32, bits of `Status`.
        n_tokens: int32; tokens: int32 `[N, S]`; a span that ended is shorter than S.
        logprob: float32, of the span under the distribution that it was drawn from, nats.
        written_from: float32 `[N, z]`, zeros where nothing steered.
        latent: float32 `[N, z]`, the encoder's of the written span.
        draft: float32 `[N, z]`, proposal for the next span, where `has_draft`.
        components: float32 `[N, C]`, unpooled rewards; value: float32, the estimate made of them.
        duplicate_of: int32, the earlier sibling with the same tokens; multiplicity: int32, how often it was drawn.
        visits, inflight, total, logit, gumbel, phi: statistics of policies; see `steer.search.policies`.
    """

    def __init__(self, span_tokens: int, z_dim: int, components: Sequence[str] = (), *, capacity: int = 256) -> None:
        if span_tokens < 1 or z_dim < 0 or capacity < 1:
            raise SearchError(
                f"a tree needs spans of at least 1 token and room for a node; got span_tokens={span_tokens}, "
                f"z_dim={z_dim}, capacity={capacity}"
            )
        self.span_tokens, self.z_dim = span_tokens, z_dim
        self.names = tuple(components)
        self.size = 0
        self.roots: list[int] = []
        self.contexts: list[tuple[int, ...]] = []
        self.horizons: list[int] = []
        self.deadlines: list[int] = []
        self._children: dict[tuple[int, int], int] = {}
        self._allocate(capacity)

    def __repr__(self) -> str:
        return f"Tree({self.size} nodes under {len(self.roots)} roots, spans of {self.span_tokens} tokens)"

    @property
    def capacity(self) -> int:
        """Nodes that fit before the arrays are doubled."""
        return len(self.parent)

    def add_root(self, context: Sequence[int], *, seed: int, horizon: int, deadline: int | None = None) -> int:
        """Add a root.

        Args:
            context: visible token ids.
            seed: of everything below; in [0, 2**63).
            horizon: spans wanted.
            deadline: spans until the terminal should be there; by default the horizon.

        Raises:
            SearchError: the horizon is below 1, or the deadline is before it.
        """
        deadline = horizon if deadline is None else deadline
        if horizon < 1 or deadline < horizon:
            raise SearchError(f"a horizon is at least 1 and a deadline not before it; got {horizon} and {deadline}")
        node = self._room()
        self.root[node], self.key[node] = node, seed
        self.size += 1
        self.roots.append(node)
        self.contexts.append(tuple(context))
        self.horizons.append(horizon)
        self.deadlines.append(deadline)
        return node

    def add(
        self,
        parent: int,
        index: int,
        tokens: Sequence[int],
        *,
        action: int = 0,
        ended: bool = False,
        value: float = 0.0,
        logprob: float = 0.0,
        written_from: NDArray[np.float32] | None = None,
        latent: NDArray[np.float32] | None = None,
        components: NDArray[np.float32] | None = None,
    ) -> int:
        """Add the span that was written as child `index` of a node; returns its id.

        Raises:
            SearchError: the parent is complete or has that child already, or the span is empty or too long.
        """
        if self.is_complete(parent):
            raise SearchError(f"node {parent} is complete: its story ended or its horizon is reached")
        if (parent, index) in self._children:
            raise SearchError(f"node {parent} has a child {index} already")
        if not 0 < len(tokens) <= self.span_tokens or (len(tokens) < self.span_tokens and not ended):
            raise SearchError(
                f"a span has {self.span_tokens} tokens, or fewer where the story ended; got {len(tokens)}"
            )
        node = self._room()
        root, depth = int(self.root[parent]), int(self.depth[parent]) + 1
        self.parent[node], self.root[node], self.depth[node] = parent, root, depth
        self.index[node], self.action[node] = index, action
        self.key[node] = child_key(int(self.key[parent]), index)
        self.n_tokens[node] = len(tokens)
        self.tokens[node, : len(tokens)] = tokens
        self.logprob[node], self.value[node] = logprob, value
        for name, row in (("written_from", written_from), ("latent", latent), ("components", components)):
            if row is not None:
                getattr(self, name)[node] = row
        status = Status(0)
        if ended:
            status |= Status.ENDED
        if ended or depth == self.horizon(parent):
            status |= Status.COMPLETE
        duplicate_of = next((n for n in self.children(parent) if self._same(n, node)), NONE)
        if duplicate_of != NONE:
            status |= Status.DUPLICATE
            self.duplicate_of[node] = duplicate_of
            self.multiplicity[duplicate_of] += 1
        self.status[node] = status
        self.size += 1
        self._link(parent, node)
        return node

    # -- reading -----------------------------------------------------------------------------------------------------

    def has(self, node: int, bits: Status) -> bool:
        """Whether all of these status bits are set."""
        return int(self.status[node]) & int(bits) == int(bits)

    def is_complete(self, node: int) -> bool:
        """Whether a node is a finished candidate: the story ended in it, or it stands at the horizon."""
        return int(self.status[node]) & _COMPLETE != 0

    def number(self, node: int) -> int:
        """Which root a node belongs to, counted from 0."""
        return self.roots.index(int(self.root[node]))

    def context(self, node: int) -> tuple[int, ...]:
        """Visible token ids of a node's root."""
        return self.contexts[self.number(node)]

    def horizon(self, node: int) -> int:
        """Spans wanted behind a node's root."""
        return self.horizons[self.number(node)]

    def deadline(self, node: int) -> int:
        """Depth at which the terminal of a node's root should be there."""
        return self.deadlines[self.number(node)]

    def child(self, parent: int, index: int) -> int | None:
        """The child of that index, or None."""
        return self._children.get((parent, index))

    def children(self, node: int) -> Iterator[int]:
        """Children in the order in which they were added."""
        child = int(self.first_child[node])
        while child != NONE:
            yield child
            child = int(self.next_sibling[child])

    def path(self, node: int) -> list[int]:
        """Nodes from below the root down to this one; of a root none."""
        path = []
        while self.parent[node] != NONE:
            path.append(node)
            node = int(self.parent[node])
        return path[::-1]

    def span(self, node: int) -> list[int]:
        """Token ids of a node's span; of a root none."""
        return self.tokens[node, : self.n_tokens[node]].tolist()

    def ids(self, node: int) -> list[int]:
        """Token ids written from the root to the end of this span, without the context."""
        return [token for n in self.path(node) for token in self.span(n)]

    def visible(self, node: int) -> list[int]:
        """Token ids that stand before the next span: the context of a node's root, and what was written behind it."""
        return [*self.context(node), *self.ids(node)]

    def mean(self, node: int) -> float:
        """Mean of the values backed up through a node; its own value before the first."""
        visits = int(self.visits[node])
        return float(self.total[node]) / visits if visits else float(self.value[node])

    def best(self, root: int) -> int | None:
        """The complete node of the greatest value below a root; among equals the earliest. None if there is none."""
        found = np.flatnonzero((self.root[: self.size] == root) & (self.status[: self.size] & Status.COMPLETE != 0))
        return int(found[np.argmax(self.value[found])]) if len(found) else None

    def furthest(self, root: int) -> int:
        """The node of the greatest value among the deepest below a root: what there is where nothing is complete."""
        rows = np.flatnonzero(self.root[: self.size] == root)
        deepest = rows[self.depth[rows] == self.depth[rows].max()]
        return int(deepest[np.argmax(self.value[deepest])])

    # -- writing -----------------------------------------------------------------------------------------------------

    def mark(self, node: int, bits: Status) -> None:
        """Set status bits."""
        self.status[node] |= bits

    def back_up(self, node: int, value: float) -> None:
        """Count a visit with this value in the node and all nodes above it."""
        while node != NONE:
            self.visits[node] += 1
            self.total[node] += value
            node = int(self.parent[node])

    def add_inflight(self, node: int, count: int) -> None:
        """Add to the visits that are under way, in the node and all nodes above it (WU-UCT, Liu et al., 2020)."""
        while node != NONE:
            self.inflight[node] += count
            node = int(self.parent[node])

    def reset_statistics(self) -> None:
        """Forget what policies noted, so that they can be run again over the same nodes."""
        for name in STATISTICS:
            getattr(self, name)[:] = FIELDS[name][2]
        self.status &= ~(Status.COMMITTED | Status.PRUNED)

    # -- memory ------------------------------------------------------------------------------------------------------

    def _width(self, kind: str) -> tuple[int, ...]:
        return {"": (), "S": (self.span_tokens,), "z": (self.z_dim,), "C": (len(self.names),)}[kind]

    def _allocate(self, capacity: int) -> None:
        for name, (dtype, kind, empty) in FIELDS.items():
            array = np.full((capacity, *self._width(kind)), empty, dtype=dtype)
            if self.size:
                array[: self.size] = getattr(self, name)[: self.size]
            setattr(self, name, array)

    def _room(self) -> int:
        """The next row; it counts once `size` is raised, so that a node that was not filled is none."""
        if self.size == self.capacity:
            self._allocate(2 * self.capacity)
        return self.size

    def _link(self, parent: int, node: int) -> None:
        last = int(self.last_child[parent])
        if last == NONE:
            self.first_child[parent] = node
        else:
            self.next_sibling[last] = node
        self.last_child[parent] = node
        self.n_children[parent] += 1
        self._children[parent, int(self.index[node])] = node

    def _same(self, a: int, b: int) -> bool:
        original = not self.has(a, Status.DUPLICATE)
        return original and self.n_tokens[a] == self.n_tokens[b] and bool((self.tokens[a] == self.tokens[b]).all())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The used part of every array, by name (views)."""
        return {name: getattr(self, name)[: self.size] for name in FIELDS}

    @classmethod
    def of(
        cls,
        arrays: dict[str, NDArray[Any]],
        *,
        components: Sequence[str],
        contexts: Sequence[Sequence[int]],
        horizons: Sequence[int],
        deadlines: Sequence[int],
    ) -> "Tree":
        """A tree from what `arrays` gave, and its roots' records.

        Raises:
            SearchError: arrays are missing, of wrong shapes, or do not describe a forest.
        """
        if set(arrays) != set(FIELDS):
            raise SearchError(f"a tree has the arrays {sorted(FIELDS)}; got {sorted(arrays)}")
        size = len(arrays["parent"])
        if arrays["tokens"].ndim != 2 or arrays["latent"].ndim != 2 or size == 0:
            raise SearchError("a tree's tokens are [N, S] and its latents [N, z], with at least one node")
        tree = cls(arrays["tokens"].shape[1], arrays["latent"].shape[1], components, capacity=size)
        for name, (dtype, kind, _) in FIELDS.items():
            if arrays[name].shape != (size, *tree._width(kind)):
                raise SearchError(
                    f"array {name} has shape {list(arrays[name].shape)}, expected {[size, *tree._width(kind)]}"
                )
            getattr(tree, name)[:] = arrays[name].astype(dtype, copy=False)
        tree.size = size
        check_links(tree)
        tree.roots = np.flatnonzero(tree.parent == NONE).tolist()
        if not len(tree.roots) == len(contexts) == len(horizons) == len(deadlines):
            raise SearchError(f"the tree has {len(tree.roots)} roots, but records of {len(contexts)}")
        tree.contexts = [tuple(context) for context in contexts]
        tree.horizons, tree.deadlines = list(horizons), list(deadlines)
        tree._children = {
            (int(p), int(i)): n for n, (p, i) in enumerate(zip(tree.parent, tree.index, strict=True)) if p != NONE
        }
        return tree
