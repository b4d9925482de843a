"""The file of an experiment over scenarios: what it says is run, and what it gets wrong is told with its line."""

from pathlib import Path
from typing import Any

import pytest

from agents.characters.goals import check_texts
from agents.errors import ExperimentError, ScenarioError
from agents.experiments.load import kind_of, load_experiment
from agents.experiments.scenarios.kind import ScenarioKind
from agents.experiments.scenarios.spec import scenario_of
from agents.scenarios.loading import load_scenario
from agents.scenarios.schema import Scenario
from steer.models.latent_model import LatentModel
from tests.agents.experiments.kit import ROOT
from tests.agents.experiments.scenarios.kit import ARMS, load_kind, small_kind, write_file

SET = ROOT / "examples" / "scenarios"


def weights(scenario: Scenario) -> list[float]:
    return [goal.weight for _, goal in scenario.goals()]


def test_cells_are_every_arm_in_every_scenario_with_every_seed(tmp_path: Path) -> None:
    arms = [*ARMS, {"name": "only", "relations": ["against"]}]
    kind = small_kind(tmp_path, arms=arms, seeds=[3, 4])
    keys = [cell.key for cell in kind.plan()]
    assert len(set(keys)) == len(keys) == 2 * (3 + 2)
    assert [cell.scenario.id for cell in kind.plan() if cell.arm.name == "only"] == ["against-hill"] * 2
    assert {cell.key for cell in kind.plan(1)} == {key for key in keys if key.endswith("agree-sea")}


def test_an_arm_changes_the_planner_and_nothing_else(tmp_path: Path) -> None:
    kind = small_kind(tmp_path, model="other")
    plain, pulled = ran(kind, 0, seed=7), ran(kind, 1, seed=7)
    assert (plain.planner.method, pulled.planner.method) == ("unguided", "annealed")
    assert plain.seed == pulled.seed != ran(kind, seed=8).seed
    assert plain.seed != ran(kind, scenario=1, seed=7).seed
    same = kind.scenarios[0].model_copy(update={"seed": plain.seed, "model": "other", "planner": plain.planner})
    assert plain == same


def test_the_keys_of_a_search_go_with_it(tmp_path: Path) -> None:
    kind = small_kind(tmp_path, scenarios=["windy_day"])
    assert kind.scenarios[0].planner.method == "guided-search"
    assert ran(kind, 1).planner.method == "annealed"
    kept = small_kind(tmp_path, scenarios=["windy_day"], arms=[{"name": "more", "planner": {"budget": 16}}])
    planner = ran(kept).planner
    assert (planner.budget, planner.policy, len(planner.menu)) == (16, "mcts", 3)


def test_the_path_of_an_index_starts_from_the_file(tmp_path: Path) -> None:
    arm = {"name": "a", "planner": {"roadmap": {"store": "indexes/stories", "waypoints": 2}}}
    roadmap = ran(small_kind(tmp_path, arms=[arm])).planner.roadmap
    assert roadmap is not None and (roadmap.store, roadmap.waypoints) == (str(tmp_path / "indexes" / "stories"), 2)


def ran(kind: ScenarioKind, arm: int = 0, scenario: int = 0, seed: int = 0) -> Scenario:
    """A scenario of the kind as one of its arms runs it."""
    return scenario_of(kind.experiment, kind.experiment.arms[arm], kind.scenarios[scenario], seed)


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [({}, [1, 0.5]), ({"first": 0.3}, [0.3, 0.5]), ({"dan": 0.5}, [1, 0.25]), ({"second": 0.9, "dan": 0.2}, [1, 0.1])],
)
def test_strengths_scale_the_weights_of_a_character(
    tmp_path: Path, strengths: dict[str, float], expected: list[float]
) -> None:
    kind = small_kind(tmp_path, arms=[{"name": "a", "strengths": strengths}])
    assert weights(ran(kind, scenario=1)) == pytest.approx(expected)


def test_scenarios_are_named_by_package_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_file(tmp_path / "set")
    (tmp_path / "set" / "experiment.yaml").unlink()
    kind = small_kind(tmp_path, scenarios=["demo", "set"])
    assert [scenario.id for scenario in kind.scenarios] == ["demo", "against-hill", "agree-sea"]
    (tmp_path / "copy").mkdir()
    path = tmp_path / "copy" / "experiment.yaml"
    path.write_text(kind.experiment.to_yaml(), encoding="utf-8")
    assert load_kind(path).settings() == kind.settings()


def test_the_file_tells_its_kind(tmp_path: Path) -> None:
    assert kind_of(load_experiment(write_file(tmp_path))) is ScenarioKind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "A"}, r"yaml:12: titel: unknown key; did you mean 'title'"),
        ({"scenarios": ["dem"]}, r"yaml:3: scenarios.0: there is no such scenario; expected .*demo"),
        ({"scenarios": ["agree-sea.yaml", "agree-sea.yaml"]}, r"yaml:4: scenarios.1: a second scenario with the id"),
        ({"arms": [{"name": "a", "panner": {}}]}, r"yaml:7: arms.0.panner: unknown key; did you mean 'planner'"),
        (
            {"arms": [{"name": "a", "planner": {"methd": "fixed"}}]},
            r"yaml:8: arms.0.planner.methd: unknown key; did you mean 'method'",
        ),
        ({"arms": [{"name": "a", "planner": {"method": "luck"}}]}, r"yaml:8: arms.0.planner.method: Input should be"),
        (
            {"arms": [{"name": "a", "planner": {"budget": 3}}]},
            r"yaml:8: arms.0.planner.budget: this key belongs to method search",
        ),
        (
            {"arms": [{"name": "a", "planner": {"schedule": "steep"}}]},
            r"yaml:8: arms.0.planner.schedule: unknown schedule",
        ),
        ({"arms": [{"name": "a", "strengths": {"zoe": 0.5}}]}, r"yaml:8: arms.0.strengths.zoe: no such character"),
        ({"arms": [{"name": "a", "strengths": {"third": 0.5}}]}, r"yaml:8: arms.0.strengths.third: no such"),
        ({"arms": [{"name": "a", "strengths": {"first": 2}}]}, r"yaml:8: arms.0.strengths.first: .*less than or equal"),
        ({"arms": [{"name": "a", "relations": ["apart"]}]}, r"yaml:8: arms.0.relations.0: no scenario has it; .*agree"),
        ({"arms": [{"name": "a"}, {"name": "A"}]}, r"yaml:7: arms.1.name: 'A' and 'a' would share files"),
        ({"reference": "x"}, r"reference: no such arm; expected one of plain, Pulled"),
        ({"seeds": [1, 1]}, r"seeds: a seed stands twice"),
        ({"arms": None}, r"arms: this key is missing"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_file(tmp_path, **changes)
    with pytest.raises(ExperimentError, match=message):
        load_experiment(path)


def test_scenarios_that_cannot_be_compared(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    file = tmp_path / "agree-sea.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("goals:", "gaols:"), encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"agree-sea.yaml:\d+: characters.0.gaols: unknown key"):
        load_experiment(path)
    file.write_text(text.replace("text: A bee.", "text: A bee.\n    kind: avoid"), encoding="utf-8")
    with pytest.raises(ExperimentError, match=r"yaml:3: scenarios.0: nobody in agree-sea has a goal of kind terminal"):
        load_experiment(path)
    file.write_text(text.replace("name: Ann", "name: Ann\n  wishes: [{like: A hat.}]"), encoding="utf-8")
    with pytest.raises(ExperimentError, match=r"scenarios.0: agree-sea has wishes"):
        load_experiment(path)


@pytest.fixture(scope="module")
def packaged() -> LatentModel:
    return LatentModel.from_pretrained("llama-fable-6m")


@pytest.mark.parametrize("path", sorted(SET.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_of_the_set_suits_the_packaged_model(path: Path, packaged: LatentModel) -> None:
    scenario = load_scenario(path)
    assert scenario.id == path.stem
    assert 2 <= len(scenario.characters) <= 4 and all(character.goals for character in scenario.characters)
    assert 6 <= scenario.turns <= 8
    check_texts(scenario, packaged)


def test_the_set_holds_four_scenarios_of_each_relation() -> None:
    kind = load_kind(ROOT / "examples" / "experiments" / "characters.yaml")
    relations = [scenario.id.partition("-")[0] for scenario in kind.scenarios]
    assert {name: relations.count(name) for name in relations} == {"agree": 4, "apart": 4, "against": 4}
