"""Memory: what is out of sight and was witnessed, by relevance, recency and salience; a function of the branch."""

from typing import Any

import pytest
import torch

from agents.characters.memory import Episode, Recollection
from steer.models.latent_model import LatentModel

STATE = torch.linspace(-1, 1, 8)


def episode(turn: int, character: str = "ann", start: int = 0, text: str = "", **similarities: float) -> Episode:
    ids = tuple((text or f"turn {turn}, all right").encode())
    named = {key.replace("_", "/"): value for key, value in similarities.items()}
    return Episode(turn, character, start, ids, {"bob/far": None, **named})


@pytest.fixture(scope="module")
def recollection(model: LatentModel) -> Recollection:
    return Recollection(model)


def recall(recollection: Recollection, episodes: list[Episode], **changes: object) -> Any:
    options = {"character": "ann", "state": STATE, "turn": 9, "forgotten": 100, **changes}
    return recollection.recall(episodes, **options)  # type: ignore[arg-type]


def test_what_is_in_sight_is_not_remembered(recollection: Recollection) -> None:
    episodes = [episode(1, start=0), episode(2, start=40), episode(3, start=80)]
    assert recall(recollection, episodes, forgotten=0) is None
    assert recall(recollection, [], forgotten=100) is None
    found = recall(recollection, episodes, forgotten=80)
    assert found is not None and {r.turn for r in found.recalled} == {1, 2}


def test_only_what_was_heard_is_remembered(recollection: Recollection) -> None:
    episodes = [episode(1, "ann"), episode(2, "bob"), episode(3, "cid")]
    turns = [
        {r.turn for r in recall(recollection, episodes, hears=hears).recalled}
        for hears in (None, frozenset(), frozenset({"cid"}))
    ]
    assert turns == [{1, 2, 3}, {1}, {1, 3}]


def test_the_figures_add_up_and_the_best_come_first(recollection: Recollection) -> None:
    episodes = [episode(turn, text="the same", ann_sea=0.1 * turn, bob_sea=0.9) for turn in range(1, 6)]
    found = recall(recollection, episodes, count=3, half_life=4.0)
    assert [r.turn for r in found.recalled] == [5, 4, 3]
    for r in found.recalled:
        assert r.recency == pytest.approx(0.5 ** ((9 - r.turn) / 4), abs=1e-5)
        assert r.salience == pytest.approx(0.1 * r.turn)
        assert r.score == pytest.approx((1 + r.similarity) / 2 + r.recency + r.salience, abs=1e-5)


def test_salience_is_of_ones_own_goals_and_never_negative(recollection: Recollection) -> None:
    one = episode(1, ann_a=-0.4, ann_b=-0.1, bob_far=0.8)
    assert (one.salience("ann"), one.salience("bob"), one.salience("cid")) == (0, 0.8, 0)


def test_one_memory_is_its_own_latent(recollection: Recollection, model: LatentModel) -> None:
    short = episode(1, text="So it is")  # one span of 8 bytes
    found = recall(recollection, [short])
    assert torch.allclose(found.latent, model.encode_ids([short.ids])[0], atol=1e-6)


def test_recalling_changes_nothing_and_branches_do_not_meet(model: LatentModel) -> None:
    """The same branch gives the same bits, whatever another branch recalled before."""
    trunk = [episode(1), episode(2, "bob")]
    branches = [[*trunk, episode(3, text=f"branch {name}")] for name in "xy"]
    alone = [recall(Recollection(model), branch) for branch in branches]
    shared = Recollection(model)
    for _ in range(2):
        for branch, expected in zip(branches, alone, strict=True):
            found = recall(shared, branch)
            assert torch.equal(found.latent, expected.latent)
            assert found.recalled == expected.recalled
    assert not torch.equal(alone[0].latent, alone[1].latent)
