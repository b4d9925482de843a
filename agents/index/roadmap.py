"""Ways through stored passages: from where a story stands to where it is to end, by way of what others told in between.

The graph is built around one query. Its nodes are the passages nearest to the terminal with those told before them, and
those nearest to the state with those told after them; so it costs the same in a store of thousands and of millions, but
for the two searches. Its edges go

- from a passage to the next of its story (where that was deleted from the store, none leads over the gap),
- from a passage to its near neighbours in other stories,
- from the state to the passages that it reaches most easily, and from the passages to the terminal;

and an edge from u to v costs

    step + resistance * -log P(v within two spans of u)

with the probability of the reach head (of a cosine c, where the model has none, `(1 + c) / 2`). The cheapest way is
networkx's (Dijkstra, 1959). Whether a way is needed at all the caller may tell by `Route.direct`.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from agents.errors import IndexingError, RunMismatch
from agents.index.build import POSITION, SPAN, SPANS, STORY, passage_id
from vectorstore import EmptyStore, Hit, Record, VectorStore

STATE, TERMINAL = -1, -2  # nodes of the graph that are no passages
NEAR_SPANS = 2  # an edge leads to what may come within so many spans

# `chance(states [n, z_dim], terminals [n, z_dim], spans) -> [n]`, in [0, 1].
Chance = Callable[[NDArray[np.float32], NDArray[np.float32], int], NDArray[np.float64]]


@dataclass(frozen=True)
class RoadmapConfig:
    """How far around a query the graph reaches, and what an edge costs.

    Attributes:
        near: passages retrieved at either end.
        back: passages before each of those near the terminal.
        ahead: passages after each of those near the state.
        links: near neighbours in other stories that each passage is joined to, and four times as many for the state.
        step: cost of an edge as such; more of it makes shorter ways.
        resistance: factor on minus the logarithm of an edge's probability.

    Raises:
        IndexingError: at construction, if a value is out of range.
    """

    near: int = 24
    back: int = 5
    ahead: int = 3
    links: int = 4
    step: float = 0.25
    resistance: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("near", 1), ("back", 0), ("ahead", 0), ("links", 1), ("step", 0), ("resistance", 0)):
            if not getattr(self, name) >= least:
                raise IndexingError(f"{name} is {getattr(self, name)!r}; expected at least {least}")


@dataclass(frozen=True)
class Waypoint:
    """A stored passage on the way.

    Attributes:
        id, text, source: of its record; the source is the file that it is from.
        similarity: cosine to the terminal.
        chance: that it comes soon after the waypoint before it (the first: after the state).
    """

    id: str
    text: str
    source: str
    similarity: float
    chance: float


@dataclass(frozen=True, eq=False)
class Route:
    """A plan: what is to come on the way to a terminal, in order.

    Attributes:
        waypoints: at least one, unless there is no span to spare.
        cost: of the whole way.
        direct: probability that the terminal comes in time from the state alone.
        vectors: float32 `[m, z_dim]`, the latents of the waypoints.
        passages, edges: size of the graph that was searched.
    """

    waypoints: tuple[Waypoint, ...]
    cost: float
    direct: float
    vectors: NDArray[np.float32]
    passages: int
    edges: int


@final
class Roadmap:
    """Plans ways through the passages of a store. Changes nothing in it.

    Args:
        store: built by `agents.index.build`.
        reach: the model's reach head, or None to judge edges by cosines.
        config: see `RoadmapConfig`.

    Attributes:
        identity: of the store's contents when the roadmap was made.
    """

    def __init__(self, store: VectorStore, reach: Any | None, config: RoadmapConfig = RoadmapConfig()) -> None:
        self.store = store
        self.config = config
        self.identity = store.revision
        self._chance: Chance = _cosine_chance if reach is None else _reach_chance(reach)

    def plan(
        self, state: NDArray[np.float32], terminal: NDArray[np.float32], *, spans: int, count: int | None = None
    ) -> Route:
        """The cheapest way from a state to a terminal.

        Args:
            state: float32 `[z_dim]`, latent of the last span that was told.
            terminal: float32 `[z_dim]`.
            spans: until the terminal is to be reached, at least 1.
            count: waypoints at most; by default one less than `spans`. Of a longer way those are kept that lie evenly.

        Raises:
            IndexingError: `spans` is below 1, or the store holds no passages.
            RunMismatch: the store was written since the roadmap was made.
        """
        if spans < 1:
            raise IndexingError(f"spans is {spans}; expected at least 1")
        most = spans - 1 if count is None else min(count, spans - 1)
        passages = self._around(state, terminal)
        # A revision never comes back, so one look behind the reading is enough.
        if (now := self.store.revision) != self.identity:
            raise RunMismatch(
                f"the index in {self.store.path} was changed while ways were planned through it; they could not be "
                f"planned again so. Its revision is {now}, expected {self.identity}: to go on, put that index, or a "
                "copy of its folder, back at this path"
            )
        vectors = np.stack([passage.vector for passage in passages])
        graph = self._graph(state, terminal, passages, vectors)
        path = nx.dijkstra_path(graph, STATE, TERMINAL, weight="cost")
        cost = nx.path_weight(graph, path, "cost")
        kept = _evenly([node for node in path if node >= 0], most)
        before = np.stack([state, *(vectors[node] for node in kept[:-1])])
        chances = self._chance(before[: len(kept)], vectors[kept], NEAR_SPANS)
        near = _cosines(terminal[None], vectors)[0]
        waypoints = tuple(
            Waypoint(
                id=passages[node].id,
                text=passages[node].text,
                source=passages[node].owner,
                similarity=float(near[node]),
                chance=float(chance),
            )
            for node, chance in zip(kept, chances, strict=True)
        )
        direct = self._chance(state[None], terminal[None], spans)[0]
        return Route(waypoints, float(cost), float(direct), vectors[kept], len(passages), graph.number_of_edges())

    def _around(self, state: NDArray[np.float32], terminal: NDArray[np.float32]) -> list[Record]:
        """The passages around both ends, by story and position."""
        config = self.config
        found: dict[str, Record] = {}
        wanted: set[str] = set()
        for end, before, after in ((state, 0, config.ahead), (terminal, config.back, 0)):
            for hit in self._nearest(end):
                found[hit.record.id] = hit.record
                story, place = _place(hit.record)
                last = hit.record.extra[SPANS] - 1
                wanted |= {passage_id(story, p) for p in range(max(0, place - before), min(last, place + after) + 1)}
        found |= {record.id: record for record in self.store.find(sorted(wanted - found.keys()))}
        return [found[id] for id in sorted(found)]

    def _nearest(self, end: NDArray[np.float32]) -> list[Hit]:
        # A store of other records finds no passages; one whose records were all deleted cannot even be searched.
        with suppress(EmptyStore):
            if hits := self.store.search(end, self.config.near, kind=SPAN):
                return hits
        raise IndexingError(f"{self.store.path} holds no passages; build it: steer index build CORPUS --store ...")

    def _graph(
        self,
        state: NDArray[np.float32],
        terminal: NDArray[np.float32],
        passages: Sequence[Record],
        vectors: NDArray[np.float32],
    ) -> nx.DiGraph:
        places = {_place(passage): node for node, passage in enumerate(passages)}
        stories = np.array([story for story, _ in places])
        pairs = {(node, places[story, p + 1]) for (story, p), node in places.items() if (story, p + 1) in places}
        cosines = _cosines(vectors, vectors)
        cosines[stories[:, None] == stories[None]] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : self.config.links]
        pairs |= {(u, int(v)) for u, row in enumerate(nearest) for v in row if cosines[u, v] > -np.inf}

        ordered = sorted(pairs)
        ends = np.array(ordered, np.int64).reshape(-1, 2)
        between = self._chance(vectors[ends[:, 0]], vectors[ends[:, 1]], NEAR_SPANS)
        first = self._chance(_rows(state, len(vectors)), vectors, NEAR_SPANS)
        last = self._chance(vectors, _rows(terminal, len(vectors)), NEAR_SPANS)

        graph = nx.DiGraph()
        graph.add_weighted_edges_from(
            ((u, v, self._cost(p)) for (u, v), p in zip(ordered, between, strict=True)), weight="cost"
        )
        chances = first.tolist()
        easiest = np.argsort(-first, kind="stable")[: 4 * self.config.links]
        graph.add_weighted_edges_from(((STATE, v, self._cost(chances[v])) for v in easiest.tolist()), weight="cost")
        graph.add_weighted_edges_from(((u, TERMINAL, self._cost(p)) for u, p in enumerate(last)), weight="cost")
        return graph

    def _cost(self, chance: float) -> float:
        return self.config.step - self.config.resistance * math.log(max(float(chance), 1e-6))


def _place(record: Record) -> tuple[str, int]:
    return record.extra[STORY], record.extra[POSITION]


def _evenly(nodes: list[int], most: int) -> list[int]:
    if len(nodes) <= most:
        return nodes
    return [nodes[round((i + 1) * (len(nodes) + 1) / (most + 1)) - 1] for i in range(most)]


def _rows(vector: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    return np.broadcast_to(vector, (count, len(vector)))


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    first, second = (x.astype(np.float64) / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    return first @ second.T


def _cosine_chance(states: NDArray[np.float32], terminals: NDArray[np.float32], spans: int) -> NDArray[np.float64]:
    norms = np.linalg.norm(states, axis=1) * np.linalg.norm(terminals, axis=1)
    return (1 + (states * terminals).sum(axis=1) / np.maximum(norms, 1e-12)) / 2


def _reach_chance(reach: Any) -> Chance:
    import torch

    def chance(states: NDArray[np.float32], terminals: NDArray[np.float32], spans: int) -> NDArray[np.float64]:
        rows = (torch.from_numpy(np.array(vectors, np.float32)) for vectors in (states, terminals))
        return reach.within(*rows, spans).double().numpy()

    return chance
