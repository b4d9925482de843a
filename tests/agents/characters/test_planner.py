"""The planner: choice by similarity, weight and urgency; schedules sliced over a character's turns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.characters.goals import GoalBook
from agents.characters.planner import Plan, own_turns, plan_turn
from agents.errors import GoalError, RunDamaged, RunMismatch
from agents.scenarios.schema import Character, Planner, Scenario
from steer.latents.schedules import bridge
from steer.models.latent_model import LatentModel
from tests.agents.conftest import make_scenario
from vectorstore import NewRecord, VectorStore


@pytest.fixture(scope="module")
def long_scenario() -> Scenario:
    return make_scenario(turns=8)


@pytest.fixture(scope="module")
def book(long_scenario: Scenario, model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoalBook]:
    with GoalBook.create(long_scenario, model, tmp_path_factory.mktemp("goals") / "store") as book:
        yield book


def plan(scenario: Scenario, book: GoalBook, character: Character, turn: int, **changes: object) -> Plan:
    options = {"state": np.ones(8, np.float32), "active": None, "settled": set(), **changes}
    return plan_turn(scenario, book, character=character, turn=turn, **options)  # type: ignore[arg-type]


def test_own_turns_counts(scenario: Scenario) -> None:
    ann, bob = scenario.characters
    for character in (ann, bob):
        for first in range(1, 6):
            for last in range(6):
                expected = sum(scenario.speaker(turn) == character for turn in range(first, last + 1))
                assert own_turns(scenario, character, first, last) == expected


def test_score_is_similarity_by_weight_by_urgency(long_scenario: Scenario, book: GoalBook) -> None:
    ann = long_scenario.characters[0]
    state = book.vectors["ann/hill"]
    record = plan(long_scenario, book, ann, 1, state=state).record
    by_goal = {candidate.goal: candidate for candidate in record.candidates}
    assert by_goal.keys() == {"sea", "hill"}  # an avoided goal is no candidate
    hill = by_goal["hill"]
    assert (hill.similarity, hill.weight, hill.urgency) == (pytest.approx(1), 0.8, 0.25)
    assert hill.score == pytest.approx(0.2, abs=1e-5)
    sea = by_goal["sea"]
    assert sea.urgency == 1  # by turn 2, so turn 1 is Ann's last chance
    assert sea.score == pytest.approx((1 + sea.similarity) / 2, abs=1e-5)
    best = max(record.candidates, key=lambda c: c.score)
    assert (record.goal, record.since, record.candidates[0]) == (best.goal, 1, best)


def test_settled_goals_are_left_out_and_the_active_one_stays(long_scenario: Scenario, book: GoalBook) -> None:
    ann = long_scenario.characters[0]
    assert plan(long_scenario, book, ann, 3, settled={"sea"}).record.goal == "hill"
    assert plan(long_scenario, book, ann, 1, active=("hill", 1)).record.goal == "hill"
    nothing = plan(long_scenario, book, ann, 3, settled={"sea", "hill"}).record
    assert (nothing.goal, nothing.candidates, nothing.weights) == (None, (), ())


def test_fewer_candidates_still_skip_settled_ones(book: GoalBook, long_scenario: Scenario) -> None:
    ann = long_scenario.characters[0]
    found = book.search(book.vectors["ann/sea"], ann, k=1, skip={"sea"})
    assert [item.goal.id for item in found] == ["hill"]


def test_slices_make_up_the_schedule(long_scenario: Scenario, book: GoalBook) -> None:
    """From turn 3, when it became active, to the last: Ann has turns 3, 5 and 7 with two spans each."""
    ann = long_scenario.characters[0]
    plans = [plan(long_scenario, book, ann, turn, active=("hill", 3), settled={"sea"}) for turn in (3, 5, 7)]
    weights = torch.cat([p.pulls[0].weights for p in plans])
    assert torch.equal(weights, bridge(6) * 0.8)
    assert [(p.record.step, p.record.steps) for p in plans] == [(0, 6), (2, 6), (4, 6)]


def test_the_voice_takes_what_the_goal_leaves(long_scenario: Scenario, book: GoalBook) -> None:
    ann = long_scenario.characters[0]
    arriving = plan(long_scenario, book, ann, 1, active=("sea", 1))
    assert arriving.record.weights == (0.5, 1.0)
    assert arriving.record.voice == (0.1, 0.0)
    assert arriving.record.avoid == {"wet": (0.5, 0.5)}
    assert [pull.avoid for pull in arriving.pulls] == [False, False, True]


def test_methods(long_scenario: Scenario, book: GoalBook) -> None:
    ann = long_scenario.characters[0]
    unguided = long_scenario.model_copy(update={"planner": Planner(method="unguided")})
    assert plan(unguided, book, ann, 1) == Plan((), 1.0, plan(unguided, book, ann, 1).record)
    assert plan(unguided, book, ann, 1).record.candidates == ()
    fixed = long_scenario.model_copy(update={"planner": Planner(method="fixed", start=0.25, guidance_scale=2)})
    assert plan(fixed, book, ann, 3, active=("hill", 1)).record.weights == pytest.approx((0.2, 0.2))
    assert plan(fixed, book, ann, 3).guidance_scale == 2


def test_planning_changes_nothing(long_scenario: Scenario, book: GoalBook) -> None:
    ann = long_scenario.characters[0]
    before = {key: vector.copy() for key, vector in book.vectors.items()}
    first = plan(long_scenario, book, ann, 3)
    assert plan(long_scenario, book, ann, 3).record == first.record
    assert all(np.array_equal(vector, before[key]) for key, vector in book.vectors.items())


def test_goals_come_back_bit_for_bit(long_scenario: Scenario, model: LatentModel, tmp_path: Path) -> None:
    with GoalBook.create(long_scenario, model, tmp_path / "store") as made:
        infos, voices = made.infos(), made.voices
    with GoalBook.load(long_scenario, model, tmp_path / "store") as loaded:
        assert loaded.infos() == infos
        assert np.array_equal(loaded.voices["ann"], voices["ann"])
        assert np.allclose(loaded.vectors["bob/eat"], model.encode("Cake!")[0].numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "A boat and a ship."}, r"goal 'eat' of 'bob' has 19 tokens; .* 8 tokens.*shorten"),
        ({"text": "<|pad|>"}, r"goal 'eat' of 'bob' holds the special token '<\|pad\|>'"),
    ],
)
def test_goals_that_do_not_suit_the_model(
    model: LatentModel, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    characters = [{"id": "bob", "name": "Bob", "goals": [{"id": "eat", **changes}]}]
    with pytest.raises(GoalError, match=message):
        GoalBook.create(make_scenario(characters=characters), model, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_special_tokens_in_visible_text(model: LatentModel, tmp_path: Path) -> None:
    with pytest.raises(GoalError, match=r"the opening holds the special token '<\|endoftext\|>'"):
        GoalBook.create(make_scenario(opening="Once.<|endoftext|>"), model, tmp_path / "store")


def test_foreign_stores(long_scenario: Scenario, model: LatentModel, tmp_path: Path) -> None:
    vector = np.ones(8, np.float32)
    VectorStore.open(tmp_path / "encoder", encoder="another", dim=8).close()
    with pytest.raises(RunMismatch, match="another"):
        GoalBook.load(long_scenario, model, tmp_path / "encoder")
    VectorStore.open(tmp_path / "empty", encoder="tiny:untrained-0", dim=8).close()
    with pytest.raises(RunDamaged, match="is missing from"):
        GoalBook.load(long_scenario, model, tmp_path / "empty")
    with pytest.raises(RunDamaged, match="no store"):
        GoalBook.load(long_scenario, model, tmp_path / "none")
    with GoalBook.create(long_scenario, model, tmp_path / "store"):
        pass
    with VectorStore.open(tmp_path / "store") as store:
        store.add(NewRecord(id="bob/more", owner="bob", kind="terminal", text="Pie!", vector=vector))
    with pytest.raises(RunDamaged, match="'bob/more', which is not in the scenario"):
        GoalBook.load(long_scenario, model, tmp_path / "store")
    with VectorStore.open(tmp_path / "store") as store:
        store.delete("bob/more")
        store.delete("bob/eat")
        store.add(NewRecord(id="bob/eat", owner="bob", kind="terminal", text="Pie!", vector=vector))
    with pytest.raises(RunDamaged, match="another owner, kind or text"):
        GoalBook.load(long_scenario, model, tmp_path / "store")
