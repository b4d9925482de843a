"""What counts when: the value against its formula, and the laws that search relies on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import steer.rewards.combine as combine_module
from steer.errors import RewardError
from steer.rewards import REWARDS, Reward, Rewards
from tests.steer.rewards.fakes import AnsweringModel, make_states
from tests.steer.rewards.test_rewards import WORDS, Within

CONFIG: dict[str, Any] = {
    "similarity": {"weight": 2.0},
    "now": {"reward": "similarity", "at": "potential", "weight": 0.7},
    "avoid": -0.5,
    "fluency": 0.1,
    "repetition": {"weight": -0.3, "at": "end", "options": {"n": 2}},
    "reach": 3.0,
}


def model() -> Any:
    answering: Any = AnsweringModel(WORDS)
    answering.reach = Within()
    return answering


def rewards(config: dict[str, Any] | None = None) -> Rewards:
    return Rewards(CONFIG if config is None else config, model())


def test_names_kinds_and_weights_are_those_of_the_configuration() -> None:
    made = rewards()
    assert made.names == tuple(CONFIG)
    assert made.kinds == ("end", "potential", "step", "step", "end", "potential")
    assert made.weights == (2.0, 0.7, -0.5, 0.1, -0.3, 3.0)


def test_components_are_kept_as_each_reward_gave_them() -> None:
    made, states = rewards(), make_states(4, model=model())
    scores = made.score(states)
    assert scores.shape == (4, 6) and scores.dtype == torch.float32
    for column, spec in enumerate(made.config.root.values()):
        assert torch.equal(scores[:, column], REWARDS[spec.reward].score(states, spec.options))


@pytest.mark.parametrize("final", [False, True])
def test_the_value_is_its_formula(final: bool) -> None:
    path = np.random.default_rng(0).normal(size=(5, 6))
    steps = -0.5 * path[:, 2].mean() + 0.1 * path[:, 3].mean()
    last = 2.0 * path[-1, 0] - 0.3 * path[-1, 4] if final else 0.7 * path[-1, 1] + 3.0 * path[-1, 5]
    assert rewards().combine(path, final) == pytest.approx(steps + last)
    assert rewards().combine(torch.from_numpy(path), final) == pytest.approx(steps + last)


def test_many_nodes_at_once_are_each_alone() -> None:
    rng, made = np.random.default_rng(1), rewards()
    paths = [rng.normal(size=(depth, 6)).astype(np.float32) for depth in (1, 4, 2, 6)]
    final = [True, False, False, True]
    sums, last = np.stack([p.astype(np.float64).sum(0) for p in paths]), np.stack([p[-1] for p in paths])
    depths = [len(p) for p in paths]
    values = made.combine_many(sums, last, depths, final)
    assert values.tolist() == pytest.approx([made.combine(p, f) for p, f in zip(paths, final, strict=True)], abs=1e-12)
    tensors = [torch.as_tensor(x) for x in (sums, last, depths, final)]
    assert made.combine_many(*tensors).tolist() == values.tolist()


def test_potentials_never_change_which_ending_is_best() -> None:
    """Final nodes have the same values, to the bit, whatever the potentials say and weigh."""
    rng = np.random.default_rng(2)
    sums, last, depths = rng.normal(size=(50, 6)), rng.normal(size=(50, 6)), rng.integers(1, 9, size=50)
    without = {k: v for k, v in CONFIG.items() if k not in ("now", "reach")}
    kept = [i for i, name in enumerate(CONFIG) if name in without]
    wanted = rewards(without).combine_many(sums[:, kept], last[:, kept], depths, np.ones(50, bool))
    for weight in (-100.0, 0.0, 1e6):
        changed = {**CONFIG, "reach": weight, "now": {**CONFIG["now"], "weight": -weight}}
        other = last.copy()
        other[:, [1, 5]] = rng.normal(size=(50, 2)) * 1e3
        values = rewards(changed).combine_many(sums, other, depths, np.ones(50, bool))
        assert values.tolist() == wanted.tolist()
        assert int(values.argmax()) == int(wanted.argmax())


def test_ends_never_count_before_the_end() -> None:
    path = np.random.default_rng(3).normal(size=(3, 6))
    other = path.copy()
    other[:, [0, 4]] += 50
    assert rewards().combine(path, False) == rewards().combine(other, False)


def test_a_weight_of_zero_is_reported_and_does_not_count() -> None:
    states = make_states(4, model=model())
    zero = rewards({**CONFIG, "avoid": 0})
    assert torch.equal(zero.score(states), rewards().score(states))
    path = np.random.default_rng(4).normal(size=(3, 6))
    other = path.copy()
    other[:, 2] = 1e30
    assert zero.combine(path, True) == zero.combine(other, True)


def test_rows_do_not_depend_on_the_batch() -> None:
    made, states = rewards(), make_states(6, model=model())
    alone = torch.cat([made.score(states.rows([i])) for i in range(6)])
    assert torch.equal(made.score(states), alone)


def test_a_costly_reward_is_asked_only_where_it_counts() -> None:
    answering = model()
    config = {"fluency": 1.0, "rubric": {"options": {"questions": ["Is it good?"]}}}
    states = make_states(4, model=answering)  # rows 0 and 3 are final
    made = Rewards(config, answering)
    scores = made.score(states)
    assert len(answering.read) == 2
    assert scores[1:3, 1].tolist() == [0, 0] and bool((scores[[0, 3], 1] != 0).all())
    assert made.counted(states.final).tolist() == [[True, True], [True, False], [True, False], [True, True]]
    made.score(states, final=[True] * 4)
    assert len(answering.read) == 6
    config["rubric"] = {**config["rubric"], "at": "step"}
    Rewards(config, answering).score(states)
    assert len(answering.read) == 10


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_by_name(bad: float) -> None:
    states = make_states(3, base_logprobs=lambda: torch.tensor([-1.0, bad, -1.0]))
    with pytest.raises(RewardError, match="reward 'smooth' gave NaN or infinity for state 1 of 3"):
        rewards({"smooth": {"reward": "fluency"}}).score(states)


def test_a_reward_of_a_wrong_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Reward = replace(REWARDS["fluency"], score=lambda states, options: torch.zeros(2, 2))
    monkeypatch.setitem(combine_module.REWARDS, "fluency", wrong)
    with pytest.raises(RewardError, match=r"'fluency' must give \[3\]; it gave \[2, 2\]"):
        rewards({"fluency": 1}).score(make_states(3))


def test_a_model_that_cannot_serve_is_refused_before_anything_is_scored() -> None:
    without = AnsweringModel(["maybe"])
    with pytest.raises(RewardError, match="needs a model with a reach head"):
        Rewards({"reach": 1}, without)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RewardError, match="no token for 'yes'"):
        Rewards({"rubric": {"options": {"questions": ["Is it?"]}}}, without)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((np.zeros((2, 6)), np.zeros((2, 5)), [1, 1], [True, True]), r"last \[2, 6\]", id="components"),
        pytest.param((np.zeros((2, 6)), np.zeros((2, 6)), [1, 1], [True]), r"final \[2\]", id="final"),
        pytest.param((np.zeros((1, 6)), np.zeros((1, 6)), [0], [True]), "depth is below 1", id="root"),
    ],
)
def test_shapes_are_checked(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        rewards().combine_many(*arguments)


def test_an_empty_path_has_no_value() -> None:
    with pytest.raises(RewardError, match="depth from 1"):
        rewards().combine(np.zeros((0, 6)), True)
    with pytest.raises(RewardError, match="must tell 3 states; got 2"):
        rewards({"fluency": 1}).score(make_states(3), final=[True, False])
