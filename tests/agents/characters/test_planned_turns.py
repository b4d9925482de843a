"""Runs whose planner goes by waypoints, memories, chances and wishes: stopped, resumed, audited, played by two arms."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from agents.errors import GoalError, RunMismatch, ScenarioError
from agents.index.build import build_index, open_index
from agents.index.passages import Cutter, Document
from agents.log.chain import read_log
from agents.log.events import GoalEvent, OpeningEvent, PlanRecord, TurnEvent
from agents.scenarios.loading import load_scenario
from agents.scenarios.schema import Scenario
from agents.simulation.audit import audit_run
from agents.simulation.manifest import LOGS, Arm, make_manifest, read_manifest, read_scenario
from agents.simulation.progress import read_progress
from agents.simulation.reached import is_met
from agents.simulation.simulation import resume_run, run_scenario
from steer.heads.reach import ReachConfig, ReachHead
from steer.models.latent_model import LatentModel
from tests.agents.conftest import make_scenario, tiny_model
from vectorstore import StoreNotFound, VectorStore

STORIES = [
    "A cat. It ran. It hid. Done.",
    "Fog. The boat. Waves! Home.",
    "Cake. More. Yum! Fat cat.",
    "Up. Up. Far up. Top.",
]

KEYS = {"arrival": ("gain",), "roadmap": ("waypoints", "waypoint"), "memory": ("memories", "memory")}


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    model = tiny_model(tiny_llama)
    torch.manual_seed(0)
    config = ReachConfig.model_validate(
        {
            "encoder_id": model.latent_config.encoder_id,
            "z_dim": 8,
            "width": 8,
            "told_similarity": 0.1,
            "told_chance": 0.2,
        }
    )
    model.reach = ReachHead(config).eval().requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def index(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned") / "index"
    with open_index(folder, model, create=True) as store:
        build_index(model, store, [Document(f"{n}.txt", text) for n, text in enumerate(STORIES)], Cutter(model))
    return folder


@pytest.fixture(scope="module")
def everything(index: Path) -> Scenario:
    """All that a planner can do, at once; long enough for turns to leave the context of 48 tokens."""
    planner = {
        "guidance_scale": 1.5,
        "reached": 0.999,
        "choose": "reach",
        "arrival": {"target": 1.0, "hurry": 1.0},
        "roadmap": {"store": str(index), "waypoints": 2, "strength": 0.6},
        "memory": {"weight": 0.2, "count": 2},
    }
    return make_scenario(turns=6, planner=planner)


def turns_of(run: Path, arm: Arm = "guided") -> list[TurnEvent]:
    return [event for event in read_log(run / LOGS[arm]).events if isinstance(event, TurnEvent)]


@pytest.fixture(scope="module")
def played(everything: Scenario, model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_scenario(everything, model, tmp_path_factory.mktemp("played") / "run").path


def test_the_log_tells_what_the_planner_saw_and_chose(played: Path) -> None:
    turns = turns_of(played)
    for turn in turns:
        plan = turn.plan
        if plan.goal is None:
            continue
        assert all(candidate.chance is not None for candidate in plan.candidates)
        assert plan.chance is not None and plan.gain == pytest.approx(2 - plan.chance, abs=1e-5)
        assert len(plan.waypoint) == 2 and plan.waypoints
        assert all(w.text in " ".join(STORIES) for w in plan.waypoints)
        for weight, way in zip(plan.weights, plan.waypoint, strict=True):
            assert way in (0, pytest.approx(0.6 * (1 - weight), abs=1e-5))
    assert any(turn.plan.memories for turn in turns)
    for turn in turns:
        assert {recalled.turn for recalled in turn.plan.memories} <= set(range(1, turn.turn))
        assert len(turn.plan.memories) <= 2 and bool(turn.plan.memory) == bool(turn.plan.memories)


def test_the_twin_knows_nothing_of_it(played: Path) -> None:
    assert all(turn.plan == PlanRecord() for turn in turns_of(played, "unguided"))


def test_a_setting_that_is_left_out_leaves_no_trace(
    everything: Scenario, model: LatentModel, played: Path, tmp_path: Path
) -> None:
    first = turns_of(played)[0].plan
    for part, keys in KEYS.items():
        less = everything.model_copy(update={"planner": everything.planner.model_copy(update={part: None})})
        run = run_scenario(less, model, tmp_path / part, baseline=False, turns=5).path
        records = [turn.plan.model_dump() for turn in turns_of(run)]
        assert not any(record.get(key) for record in records for key in keys)
        other = turns_of(run)[0].plan
        assert (other.weights == first.weights) == (part != "arrival")
        assert (other.waypoint == first.waypoint) == (part == "memory")


def test_what_pulls_leaves_room_for_the_draft(played: Path) -> None:
    for turn in turns_of(played):
        plan = turn.plan
        shares = [column for column in (plan.weights, plan.waypoint, plan.voice, plan.memory) if column]
        assert all(sum(span) <= 1 + 1e-5 for span in zip(*shares, strict=True))


def test_stopped_anywhere_it_resumes_to_the_same_bytes(
    everything: Scenario, model: LatentModel, played: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    for place in (2, 9):
        run, seen = tmp_path / str(place), []

        def stop(event: object, arm: str, seen: list = seen, place: int = place) -> None:
            seen.append(event)
            if len(seen) == place:
                raise Stop

        with pytest.raises(Stop):
            run_scenario(everything, model, run, on_event=stop)
        resume_run(run, model)
        assert [(run / log).read_bytes() for log in LOGS.values()] == [
            (played / log).read_bytes() for log in LOGS.values()
        ]


def test_a_replay_writes_the_same(model: LatentModel, played: Path) -> None:
    report = audit_run(played, model=model, replay=True)
    assert report.ok, [check for check in report.checks if not check.ok]


def test_a_changed_or_missing_index_is_told(
    everything: Scenario, model: LatentModel, index: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(event: object, arm: str) -> None:
        raise Stop

    copy = tmp_path / "index"
    with open_index(copy, model, create=True) as store:
        build_index(model, store, [Document("a.txt", STORIES[0])], Cutter(model))
    assert everything.planner.roadmap is not None
    roadmap = everything.planner.roadmap.model_copy(update={"store": str(copy)})
    scenario = everything.model_copy(update={"planner": everything.planner.model_copy(update={"roadmap": roadmap})})
    with pytest.raises(Stop):
        run_scenario(scenario, model, tmp_path / "run", on_event=stop)
    shutil.copytree(copy, tmp_path / "copy")
    with open_index(copy, model, create=True) as store:
        build_index(model, store, [Document("b.txt", STORIES[1])], Cutter(model))
    with pytest.raises(
        RunMismatch, match="was changed since .* is [0-9a-f]{32}, expected [0-9a-f]{32}: put that index"
    ):
        resume_run(tmp_path / "run", model)
    report = audit_run(tmp_path / "run", model=model)
    assert [c.name for c in report.checks if not c.ok] == ["guided: store"]
    copy.rename(tmp_path / "elsewhere")
    for problem in ("there is none", "holds vectors of encoder 'another'"):
        with pytest.raises(RunMismatch, match=rf"{problem}.*; expected revision [0-9a-f]{{32}}: put that index"):
            resume_run(tmp_path / "run", model)
        (check,) = (c for c in audit_run(tmp_path / "run", model=model).checks if not c.ok)
        assert check.name == "guided: store" and problem in check.detail
        VectorStore.open(copy, encoder="another", dim=8).close()
    shutil.rmtree(copy)
    shutil.copytree(tmp_path / "copy", copy)  # a copy will do
    assert resume_run(tmp_path / "run", model).status == "finished"
    roadmap = roadmap.model_copy(update={"store": str(tmp_path / "nowhere")})
    scenario = everything.model_copy(update={"planner": everything.planner.model_copy(update={"roadmap": roadmap})})
    with pytest.raises(StoreNotFound):
        run_scenario(scenario, model, tmp_path / "other")
    assert not (tmp_path / "other" / "manifest.json").exists()


def test_an_index_that_is_changed_while_a_run_plans_stops_the_run(
    everything: Scenario, model: LatentModel, index: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index, copy)
    shutil.copytree(index, tmp_path / "kept")
    assert everything.planner.roadmap is not None
    roadmap = everything.planner.roadmap.model_copy(update={"store": str(copy)})
    scenario = everything.model_copy(update={"planner": everything.planner.model_copy(update={"roadmap": roadmap})})
    run_scenario(scenario, model, tmp_path / "whole")

    def change(event: object, arm: str) -> None:
        if isinstance(event, TurnEvent) and event.turn == 1:
            with open_index(copy, model, create=True) as store:
                build_index(model, store, [Document("late.txt", "It was late. They ran home.")], Cutter(model))

    with pytest.raises(RunMismatch, match="was changed while ways were planned .* expected [0-9a-f]{32}: to go on"):
        run_scenario(scenario, model, tmp_path / "run", on_event=change)
    shutil.rmtree(copy)
    shutil.copytree(tmp_path / "kept", copy)
    assert resume_run(tmp_path / "run", model).status == "finished"
    logs = [[(tmp_path / run / log).read_bytes() for log in LOGS.values()] for run in ("run", "whole")]
    assert logs[0] == logs[1]


def test_the_reach_head_says_what_was_told(everything: Scenario, model: LatentModel, tmp_path: Path) -> None:
    """Unless the scenario names a similarity; both thresholds must be met."""
    planner = everything.planner.model_copy(update={"reached": None})
    scenario = everything.model_copy(update={"planner": planner})
    run = run_scenario(scenario, model, tmp_path / "run").path
    manifest, events = read_manifest(run), read_log(run / LOGS["guided"]).events
    assert (manifest.threshold, manifest.told) == (0.1, 0.2)
    opening = events[0]
    assert isinstance(opening, OpeningEvent) and opening.told == 0.2
    settled = {f"{e.character}/{e.goal}": e for e in events if isinstance(e, GoalEvent)}
    for turn in turns_of(run):
        assert turn.told.keys() == turn.similarities.keys()
        for key, chance in turn.told.items():
            near = turn.similarities[key]
            met = chance is not None and near is not None and near >= 0.1 and chance >= 0.2
            assert is_met(key, turn, opening) == met
            if met:
                assert settled[key].turn <= turn.turn and settled[key].told is not None
    assert audit_run(run, model=model, replay=True).ok
    curve = read_progress(run).goals[0].guided
    assert curve.values == curve.told == tuple(turn.told["ann/sea"] for turn in turns_of(run))
    assert read_progress(run).threshold == 0.2 and read_progress(run).told


def test_text_that_is_pulled_must_tell_as_stories_mostly_do(model: LatentModel, everything: Scenario) -> None:
    assert model.reach is not None
    scenario = everything.model_copy(update={"planner": everything.planner.model_copy(update={"reached": None})})
    plain = model.reach.config
    model.reach.config = plain.model_copy(update={"pulled_similarity": 0.7})
    try:
        manifest = make_manifest(scenario, model, ("guided",))
    finally:
        model.reach.config = plain
    assert (manifest.threshold, manifest.told) == (0.7, 0.2)


def test_a_named_similarity_decides_alone(played: Path) -> None:
    progress = read_progress(played)
    assert (progress.threshold, progress.told) == (0.999, False)
    assert all(turn.told == {} for turn in turns_of(played))


def test_arrival_control_needs_a_reach_head(everything: Scenario, tiny_llama: Path, tmp_path: Path) -> None:
    planner = everything.planner.model_copy(update={"roadmap": None})
    with pytest.raises(GoalError, match="arrival control needs a model with a reach head"):
        run_scenario(everything.model_copy(update={"planner": planner}), tiny_model(tiny_llama), tmp_path / "run")


def wishful(**wish: object) -> Scenario:
    characters = [
        {"id": "ann", "name": "Ann", "description": "A cat. A very long sentence indeed.", "wishes": [wish]},
        {"id": "bob", "name": "Bob", "goals": [{"id": "wish-1-1", "text": "Cake!"}]},
    ]
    return make_scenario(characters=characters)


def test_wishes_become_goals_of_the_run(model: LatentModel, index: Path, tmp_path: Path) -> None:
    scenario = wishful(like="Fat cat.", among=str(index), count=2, weight=0.5, by_turn=3)
    run = run_scenario(scenario, model, tmp_path / "run").path
    kept = read_scenario(run, read_manifest(run))
    ann = kept.characters[0]
    assert ann.wishes == () and [goal.id for goal in ann.goals] == ["wish-1-1", "wish-1-2"]
    endings = {"Done.", "Home.", "Top."}  # of one story a mere full stop is left over, which is no goal
    for goal in ann.goals:
        assert (goal.kind, goal.weight, goal.by_turn) == ("terminal", 0.5, 3)
        assert goal.text in endings
        assert goal.source.split(",")[0] in {"0.txt", "1.txt", "3.txt"}
    assert audit_run(run, model=model, replay=True).ok
    goals = json.loads((run / LOGS["guided"]).read_text(encoding="utf-8").splitlines()[0])["goals"]
    assert [g["text"] for g in goals if g["character"] == "ann"] == [goal.text for goal in ann.goals]


def test_without_an_index_the_sentences_are_the_goals(model: LatentModel, tmp_path: Path) -> None:
    """A sentence that is longer than a span cannot be one."""
    run = run_scenario(wishful(), model, tmp_path / "run", baseline=False).path
    goals = read_scenario(run, read_manifest(run)).characters[0].goals
    assert [(goal.text, goal.source) for goal in goals] == [("A cat.", "of ann's description")]
    with pytest.raises(GoalError, match="wish 1 of 'ann' is for 2 goals, and its sentences gave 1"):
        run_scenario(wishful(count=2), model, tmp_path / "two")


def test_wishes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither `like` nor the character's description"):
        make_scenario(characters=[{"id": "ann", "name": "Ann", "wishes": [{"count": 1}]}])
    with pytest.raises(ValueError, match="by_turn is 9, but the run has 4"):
        wishful(by_turn=9)
    with pytest.raises(ValueError, match="there is no character 'cid'"):
        make_scenario(characters=[{"id": "ann", "name": "Ann", "hears": ["cid"]}])
    file = tmp_path / "play.yaml"
    file.write_text(wishful(count=7).to_yaml().replace("count: 7", "cuont: 7"), encoding="utf-8")
    with pytest.raises(ScenarioError, match="cuont"):
        load_scenario(file)


def test_paths_count_from_the_scenario_file(everything: Scenario, tmp_path: Path) -> None:
    data = everything.model_dump(mode="json")
    data["planner"]["roadmap"]["store"] = "stores/mine"
    data["characters"][0]["wishes"] = [{"like": "Home.", "among": "../else"}]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "play.yaml").write_text(json.dumps(data), encoding="utf-8")
    loaded = load_scenario(tmp_path / "deep" / "play.yaml")
    assert loaded.planner.roadmap is not None
    assert Path(loaded.planner.roadmap.store) == tmp_path / "deep" / "stores" / "mine"
    assert Path(loaded.characters[0].wishes[0].among or "").resolve() == tmp_path / "else"


def test_hearing_nobody_is_not_hearing_all(tmp_path: Path) -> None:
    scenario = make_scenario(characters=[{"id": "ann", "name": "Ann", "hears": []}])
    (tmp_path / "play.yaml").write_text(scenario.to_yaml(), encoding="utf-8")
    assert load_scenario(tmp_path / "play.yaml").characters[0].hears == ()
