"""Ways through stored passages, in a world that can be checked by hand: passages on a circle, chances by angle."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.errors import IndexingError
from agents.index.build import ENDING, POSITION, SPAN, SPANS, STORY, passage_id
from agents.index.roadmap import Roadmap, RoadmapConfig
from vectorstore import NewRecord, VectorStore


def at(degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    return np.array([math.cos(angle), math.sin(angle)], np.float32)


class Compass:
    """A reach head's stand-in: what lies up to 30 degrees ahead comes soon, the rest does not."""

    def within(self, states: torch.Tensor, terminals: torch.Tensor, spans: int) -> torch.Tensor:
        a, b = (torch.atan2(rows[:, 1], rows[:, 0]) for rows in (states, terminals))
        ahead = torch.rad2deg((b - a) % (2 * math.pi))
        return torch.where((ahead > 0) & (ahead <= 30), 0.9 - ahead / 100, torch.tensor(0.001))


def add_story(store: VectorStore, name: str, degrees: list[float]) -> None:
    store.add(
        NewRecord(
            id=passage_id(name, place),
            kind=SPAN,
            owner=f"{name}.txt",
            text=f"{name} at {angle:g}",
            vector=at(angle),
            extra={STORY: name, POSITION: place, SPANS: len(degrees), ENDING: place == len(degrees) - 1},
        )
        for place, angle in enumerate(degrees)
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with VectorStore.open(tmp_path / "store", encoder="compass", dim=2) as store:
        yield store


SMALL = RoadmapConfig(near=3, back=4, ahead=2, links=2)


def test_the_way_follows_a_story_that_leads_there(store: VectorStore) -> None:
    add_story(store, "right", [10, 35, 60, 85, 110])
    add_story(store, "wrong", [5, 300, 200, 115])
    route = Roadmap(store, Compass(), SMALL).plan(at(0), at(112), spans=8)
    assert [w.text for w in route.waypoints] == [f"right at {angle}" for angle in (10, 35, 60, 85)]
    assert route.waypoints[0].source == "right.txt"
    assert route.direct == pytest.approx(0.001)
    hops = [10, 25, 25, 25, 27]  # from 85 straight to 112: by way of 110 would cost another step
    assert route.cost == pytest.approx(sum(0.25 - math.log(0.9 - hop / 100) for hop in hops), rel=1e-4)
    assert [w.chance for w in route.waypoints] == pytest.approx([0.9 - hop / 100 for hop in hops[:-1]], rel=1e-4)
    assert route.waypoints[-1].similarity == pytest.approx(math.cos(math.radians(27)), abs=1e-5)
    assert np.array_equal(route.vectors, np.stack([at(a) for a in (10, 35, 60, 85)]))


def test_the_way_may_change_stories(store: VectorStore) -> None:
    """Neither leads all the way; a near neighbour joins them."""
    add_story(store, "first", [20, 45, 70, 250])
    add_story(store, "second", [180, 75, 100, 125])
    route = Roadmap(store, Compass(), SMALL).plan(at(0), at(130), spans=9)
    texts = [w.text for w in route.waypoints]
    assert texts[0].startswith("first") and texts[-1].startswith("second")
    assert "first at 250" not in texts and "second at 180" not in texts


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_waypoints_lie_evenly_on_the_way(store: VectorStore, count: int) -> None:
    add_story(store, "right", [10, 35, 60, 85, 110])
    roadmap = Roadmap(store, Compass(), SMALL)
    kept = [w.text for w in roadmap.plan(at(0), at(112), spans=8, count=count).waypoints]
    assert kept == [f"right at {angle}" for angle in {1: [35], 2: [35, 60], 3: [10, 35, 85]}[count]]
    assert len(roadmap.plan(at(0), at(112), spans=count + 1).waypoints) == count
    assert roadmap.plan(at(0), at(112), spans=1).waypoints == ()


def test_the_graph_is_of_the_neighbourhood_alone(store: VectorStore) -> None:
    add_story(store, "right", [10, 35, 60, 85, 110])
    before = Roadmap(store, Compass(), SMALL).plan(at(0), at(112), spans=8)
    for number in range(30):
        add_story(store, f"far{number:02}", [180.0 + number, 190.0 + number, 200.0 + number])
    after = Roadmap(store, Compass(), SMALL).plan(at(0), at(112), spans=8)
    assert [w.id for w in after.waypoints] == [w.id for w in before.waypoints]
    assert after.passages <= 3 * (1 + 4) + 3 * (1 + 2)


def test_deleted_passages_are_done_without(store: VectorStore) -> None:
    """The others are as if it had never been there: the way goes on by another story, or straight."""
    add_story(store, "right", [10, 35, 60, 85, 110])
    add_story(store, "other", [12, 37, 62, 87])
    store.delete(passage_id("right", 2))
    route = Roadmap(store, Compass(), SMALL).plan(at(0), at(112), spans=8)
    texts = [w.text for w in route.waypoints]
    assert "right at 60" not in texts and "other at 62" in texts
    store.delete_where(where={STORY: "other"})
    left = [w.text for w in Roadmap(store, Compass(), SMALL).plan(at(0), at(112), spans=8).waypoints]
    assert left and set(left) <= {f"right at {angle}" for angle in (10, 35, 85, 110)}


@pytest.mark.parametrize("kept", [0, 2, 4])
@pytest.mark.parametrize("reach", [Compass(), None])
def test_one_passage_that_is_left_is_the_way(store: VectorStore, kept: int, reach: Compass | None) -> None:
    angles = [10.0, 35.0, 60.0, 85.0, 110.0]
    add_story(store, "right", angles)
    store.delete([passage_id("right", place) for place in range(5) if place != kept])
    route = Roadmap(store, reach, SMALL).plan(at(0), at(112), spans=8)
    assert [w.text for w in route.waypoints] == [f"right at {angles[kept]:g}"]
    assert (route.passages, route.edges) == (1, 2)


def test_where_all_passages_were_deleted_that_is_told(store: VectorStore) -> None:
    add_story(store, "right", [10, 35])
    store.delete_where(kind=SPAN)
    with pytest.raises(IndexingError, match="holds no passages; build it"):
        Roadmap(store, Compass()).plan(at(0), at(90), spans=4)


def test_planning_changes_nothing(store: VectorStore) -> None:
    add_story(store, "right", [10, 35, 60, 85, 110])
    roadmap = Roadmap(store, Compass(), SMALL)
    routes = [roadmap.plan(at(0), at(112), spans=8) for _ in range(2)]
    assert routes[0].waypoints == routes[1].waypoints and routes[0].cost == routes[1].cost
    assert roadmap.identity == store.revision


def test_without_a_reach_head_cosines_do(store: VectorStore) -> None:
    add_story(store, "right", [10, 35, 60, 85, 110])
    route = Roadmap(store, None, SMALL).plan(at(0), at(112), spans=8)
    assert route.waypoints and route.direct == pytest.approx((1 + math.cos(math.radians(112))) / 2, abs=1e-5)


def test_bad_requests_are_told(store: VectorStore) -> None:
    store.add(NewRecord(kind="terminal", text="no passage", vector=at(0)))
    with pytest.raises(IndexingError, match="holds no passages; build it"):
        Roadmap(store, Compass()).plan(at(0), at(90), spans=4)
    with pytest.raises(IndexingError, match="spans is 0"):
        Roadmap(store, Compass()).plan(at(0), at(90), spans=0)
    with pytest.raises(IndexingError, match="links is 0; expected at least 1"):
        RoadmapConfig(links=0)
    with pytest.raises(IndexingError, match="resistance is nan"):
        RoadmapConfig(resistance=math.nan)
