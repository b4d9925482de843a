"""Turns that are searched for: what is fed, what is logged, and the same bytes wherever a run was stopped."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import agents.simulation.searched_turn
from agents.characters.planner import Hopes
from agents.errors import ScenarioError
from agents.log.chain import FIRST, read_log
from agents.log.events import Event, OpeningEvent, TurnEvent, decode_event, encode_event
from agents.scenarios.loading import load_scenario, scenario_schema
from agents.scenarios.planner_settings import SEARCH_KEYS, MenuItem, Planner
from agents.scenarios.schema import Scenario, override
from agents.simulation.audit import audit_run
from agents.simulation.searched_turn import turn_rewards
from agents.simulation.simulation import resume_run, run_scenario
from steer.models.latent_model import LatentModel
from steer.search.action import Action
from tests.agents.cli.kit import steer
from tests.agents.conftest import OPENING, make_scenario
from tests.forked import fork, needs_fork

GUIDED = {
    "method": "guided-search",
    "policy": "best_of_n",
    "budget": 4,
    "guidance_scale": 1.5,
    "reached": 0.9,
    "menu": [{"strength": 1.0}, {"strength": 0.5, "guidance_scale": 1.0, "temperature": 1.0}],
}
LOGS = ("events.jsonl", "unguided.jsonl")


class Stop(Exception):
    pass


def searching(**changes: object) -> Scenario:
    return make_scenario(planner=GUIDED | changes)


def turns_of(run: Path, name: str = LOGS[0]) -> list[TurnEvent]:
    return [event for event in read_log(run / name).events if isinstance(event, TurnEvent)]


def logs(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in LOGS]


@pytest.fixture(scope="module")
def played(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose turns were searched for. Tests share it."""
    return run_scenario(searching(), model, tmp_path_factory.mktemp("runs") / "played").path


# -- runs --------------------------------------------------------------------------------------------------------------


def test_the_log_tells_what_was_searched(model: LatentModel, played: Path) -> None:
    opening = read_log(played / LOGS[0]).events[0]
    assert isinstance(opening, OpeningEvent) and opening.method == "guided-search"
    for turn in turns_of(played):
        found = turn.plan.search
        assert found is not None
        assert (found.method, found.policy, found.budget) == ("guided-search", "best_of_n", 4 * 2 * 8)
        assert 0 < found.tokens <= found.budget and found.tokens == turn.tokens == 8 * (turn.spans + turn.drafts)
        assert (found.nodes, found.finished, found.status) == (turn.spans, True, "finished")
        assert len(found.actions) == 2 and set(found.actions) <= {0, 1}
        assert {len(figures) for figures in found.components.values()} == {2}
        # Ann wants and avoids something; Bob only wants.
        rewards = {"similarity", "similarity_now", "fluency", "repetition"} & found.components.keys()
        assert ("avoid" in found.components) == (turn.character == "ann")
        assert ("similarity" in rewards) == (turn.plan.goal is not None)
        assert turn.plan.weights or turn.plan.goal is None


def test_searched_runs_pass_the_audit_and_are_replayed_exactly(model: LatentModel, played: Path) -> None:
    report = audit_run(played, model=model, replay=True)
    assert report.ok, [check for check in report.checks if not check.ok]


def test_the_unguided_twin_is_that_of_any_method(model: LatentModel, played: Path, tmp_path: Path) -> None:
    plain = make_scenario(planner={"guidance_scale": 1.5, "reached": 0.9})
    run_scenario(plain, model, tmp_path / "run")
    assert logs(tmp_path / "run")[1] == logs(played)[1]
    assert b'"search":{' not in logs(tmp_path / "run")[0] + logs(played)[1]
    assert logs(tmp_path / "run")[0] != logs(played)[0]


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_stopped_at_an_event_it_resumes_to_the_same_bytes(
    model: LatentModel, played: Path, tmp_path: Path, count: int
) -> None:
    seen: list[Event] = []

    def stop(event: Event, arm: str) -> None:
        seen.append(event)
        if len(seen) == count:
            raise Stop

    with pytest.raises(Stop):
        run_scenario(searching(), model, tmp_path / "run", on_event=stop)
    resume_run(tmp_path / "run", model)
    assert logs(tmp_path / "run") == logs(played)


def test_a_search_that_is_interrupted_leaves_no_turn(
    model: LatentModel, played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a turn's search, which returns what it has: half a search is not logged."""
    real, calls = agents.simulation.searched_turn.write_searched, []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(args)

        def press(done: int, most: int | None) -> None:
            if len(calls) == 2:
                raise KeyboardInterrupt

        return real(*args, **options, on_progress=press)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(agents.simulation.searched_turn, "write_searched", interrupted)
        run_scenario(searching(), model, tmp_path / "run")
    assert [turn.turn for turn in turns_of(tmp_path / "run")] == [1]
    assert audit_run(tmp_path / "run", model=model, replay=True).ok
    resume_run(tmp_path / "run", model)
    assert logs(tmp_path / "run") == logs(played)


@needs_fork
def test_killed_in_the_middle_it_resumes_to_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    scenario = searching(menu=[]).model_copy(update={"model": str(saved), "turns": 5})
    (tmp_path / "play.yaml").write_text(scenario.to_yaml(), encoding="utf-8")
    command = ("run", tmp_path / "play.yaml", "--out", tmp_path / "killed", "--no-baseline")
    process = fork(tmp_path / "output", steer, *command)
    log, deadline = tmp_path / "killed" / LOGS[0], time.monotonic() + 240
    while time.monotonic() < deadline and process.is_alive():
        if log.exists() and log.read_bytes().count(b'"type":"turn"') >= 2:
            break
        time.sleep(0.005)
    process.kill()
    process.join()
    model = LatentModel.from_pretrained(saved)
    assert 2 <= len(turns_of(tmp_path / "killed"))
    resume_run(tmp_path / "killed", model)
    whole = run_scenario(load_scenario(tmp_path / "play.yaml"), model, tmp_path / "whole", baseline=False)
    assert (tmp_path / "killed" / LOGS[0]).read_bytes() == (whole.path / LOGS[0]).read_bytes()


def test_only_the_story_is_fed(model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reaches the embeddings while a turn is searched for is a piece of context + some candidate."""
    model.encode("warm")
    model.fused("router")
    fed: list[list[int]] = []
    checked = []

    def spy(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[-1] > 1:  # the others are single tokens just drawn
            fed.extend(inputs[0].tolist())

    real = agents.simulation.searched_turn.write_searched

    def searched(given: Any, contexts: Sequence[Sequence[int]], **options: Any) -> Any:
        fed.clear()
        results = real(given, contexts, **options)
        tree = results[0].tree
        texts = [[*tree.context(0), *tree.ids(node)] for node in range(tree.size)]
        # The engine tries itself out on counted-up ids first; a span that ended is padded.
        texts.append(list(range(1, 6 + 2 * model.span_tokens)))
        rows = {tuple(row) for row in fed}
        foreign = [row for row in rows if not any(_holds(text, row) or _holds(text, _cut(row)) for text in texts)]
        assert not foreign
        assert tree.context(0)[:-1] in rows
        checked.append((tree.context(0), tuple(contexts[0])))
        return results

    monkeypatch.setattr(agents.simulation.searched_turn, "write_searched", searched)
    base: Any = model.peft.get_base_model()
    hook = base.get_input_embeddings().register_forward_pre_hook(spy)
    try:
        run_scenario(searching(policy="mcts", budget=6), model, tmp_path / "run", baseline=False)
    finally:
        hook.remove()
    visible = model.to_ids(OPENING)
    for turn, (context, given) in zip(turns_of(tmp_path / "run"), checked, strict=True):
        visible += turn.cue_ids
        assert (list(given), list(context)) == (visible, visible[-48:])
        visible += turn.ids
    assert len(visible) > 48


def _holds(text: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(text[i : i + len(part)]) == list(part) for i in range(len(text) - len(part) + 1))


def _cut(row: tuple[int, ...]) -> tuple[int, ...]:
    end = len(row)
    while end and row[end - 1] == 0:
        end -= 1
    return row[:end]


def test_search_without_pulls(model: LatentModel, tmp_path: Path) -> None:
    planner = {"method": "search", "budget": 3, "policy": "beam", "policy_options": {"expand": 2}, "reached": 0.9}
    run = run_scenario(make_scenario(planner=planner), model, tmp_path / "run", baseline=False).path
    for turn in turns_of(run):
        assert (turn.plan.weights, turn.plan.voice, turn.plan.avoid, turn.drafts) == ((), (), {}, 0)
        assert turn.plan.search is not None and turn.plan.search.method == "search"
    assert any(turn.plan.goal for turn in turns_of(run))
    assert audit_run(run, model=model, replay=True).ok


def test_turns_that_lack_what_rewards_look_at_are_not_searched(model: LatentModel, tmp_path: Path) -> None:
    """Only similarity counts: once Ann has no goal left, there is nothing to compare her turns by."""
    characters = [{"id": "ann", "name": "Ann", "goals": [{"id": "sea", "text": "A boat.", "by_turn": 1}]}]
    scenario = make_scenario(characters=characters, turns=2, planner=GUIDED | {"rewards": {"similarity": 1.0}})
    run = run_scenario(scenario, model, tmp_path / "run", baseline=False).path
    first, second = turns_of(run)
    assert first.plan.search is not None and first.plan.search.components.keys() == {"similarity"}
    assert second.plan.search is None
    assert audit_run(run, model=model, replay=True).ok


def test_goals_that_weigh_nothing_are_not_compared_with(model: LatentModel, tmp_path: Path) -> None:
    characters = [{"id": "ann", "name": "Ann", "goals": [{"id": "sea", "text": "A boat.", "weight": 0}]}]
    scenario = make_scenario(characters=characters, turns=1, planner=GUIDED)
    turn = turns_of(run_scenario(scenario, model, tmp_path / "run", baseline=False).path)[0]
    assert turn.plan.goal == "sea" and turn.drafts == 0
    assert turn.plan.search is not None and turn.plan.search.components.keys() == {"fluency", "repetition"}


def test_rewards_of_a_turn(model: LatentModel) -> None:
    latent = torch.ones(8)

    def names(hopes: Hopes, **planner: object) -> list[str]:
        rewards = turn_rewards(searching(**planner), model, hopes)
        return [] if rewards is None else list(rewards.root)

    both, nothing = Hopes(latent, 2, latent[None]), Hopes(None, 2, None)
    assert names(both) == ["similarity", "similarity_now", "avoid", "fluency", "repetition"]
    assert names(nothing) == ["fluency", "repetition"]
    own = {"far": {"reward": "avoid"}, "near": {"reward": "similarity"}, "fluency": 0.2}
    assert names(both, rewards=own) == list(own)
    assert names(Hopes(latent, 2, None), rewards=own) == ["near", "fluency"]
    assert names(nothing, rewards={"similarity": 1}) == []


# -- logs and scenarios without a search ------------------------------------------------------------------------------


def test_logs_are_read_as_they_were_written(played: Path) -> None:
    for turn in (*turns_of(played), *turns_of(played, LOGS[1])):
        line = encode_event(turn, FIRST)
        assert decode_event(line) == (turn, FIRST)
        assert (b'"search":null' in line) == (turn.plan.search is None)


def test_scenarios_without_a_search_have_none_of_its_keys() -> None:
    planner = make_scenario().model_dump()["planner"]
    assert not set(SEARCH_KEYS) & planner.keys()
    assert "policy" not in make_scenario().to_yaml()


def test_scenarios_round_trip(tmp_path: Path) -> None:
    scenario = searching(rewards={"similarity": 1, "loops": {"reward": "repetition", "options": {"n": 3}}})
    (tmp_path / "copy.yaml").write_text(scenario.to_yaml(), encoding="utf-8")
    again = load_scenario(tmp_path / "copy.yaml")
    assert again == scenario and again.sha256() == scenario.sha256() == override(scenario).sha256()
    assert searching(budget=5).sha256() != searching().sha256()


def test_menus() -> None:
    assert searching().planner.actions() == (Action(1.0, 1.5), Action(0.5, 1.0, 1.0))
    assert Planner(method="guided-search", guidance_scale=2).actions() == (Action(1.0, 2.0), Action(0.7, 2.0))
    assert Planner(method="search").actions() == (Action(),)


@pytest.mark.parametrize(
    ("planner", "message"),
    [
        ("{budget: 4}", r":6: planner\.budget: this key belongs to method search or guided-search, not to annealed"),
        ("{method: fixed, rewards: {fluency: 1}}", r"planner\.rewards: this key belongs to"),
        ("{method: search, menu: [{strength: 1}]}", r"planner\.menu: method search writes without pulls"),
        ("{method: search, policy: a_star}", r"planner\.policy: unknown policy; expected one of best_of_n"),
        ("{method: search, policy_options: {width: 2}}", r"planner\.policy_options: .*width: unknown key"),
        ("{method: guided-search, budget: 1}", r"planner\.budget: .*at least 2"),
        ("{method: search, budget: 0}", r"planner\.budget: .*greater than or equal to 1"),
        ("{method: guided-search, menu: [{strenght: 1}]}", r"menu\.0\.strenght: unknown key; did you mean 'strength'"),
        ("{method: search, rewards: {luck: 1}}", r"planner\.rewards\.luck: unknown reward 'luck'"),
        (
            "{method: search, rewards: {repetition: {options: {m: 1}}}}",
            r"repetition\.options\.m: unknown option",
        ),
        ("{method: search}\nsampling: {temperature: 0}", r":7: sampling\.temperature: at 0 every text is the same"),
        (
            "{method: guided-search, menu: [{strength: 1, temperature: 1}]}\nsampling: {temperature: 0}",
            r"sampling\.temperature: at 0 nothing is drawn",
        ),
    ],
)
def test_errors_name_line_and_key(tmp_path: Path, planner: str, message: str) -> None:
    file = tmp_path / "walk.yaml"
    head = "id: walk\nopening: The sun was up.\nturns: 2\ncharacters:\n  - {id: a, name: Ann}\nplanner: "
    file.write_text(head + planner + "\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match=message):
        load_scenario(file)


def test_schema() -> None:
    schema = json.loads(json.dumps(scenario_schema()))["$defs"]
    assert set(schema["Planner"]["properties"]) == set(Planner.model_fields)
    assert set(schema["MenuItem"]["properties"]) == set(MenuItem.model_fields)
    assert "mcts" in schema["Planner"]["properties"]["policy"]["enum"]
    assert "RewardSpec" not in schema
