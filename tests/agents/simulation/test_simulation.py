"""Runs: the same bytes every time, wherever they were stopped; nothing in the context but the story."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import agents.simulation.turn
from agents.errors import RunBusy, RunDamaged, RunExists, RunMismatch, RunNotFound, RunWriteError
from agents.log.chain import EventLog, read_log
from agents.log.events import EndEvent, Event, GoalEvent, OpeningEvent, TurnEvent, hash_ids
from agents.scenarios.schema import Scenario
from agents.simulation.simulation import RunSummary, resume_run, run_scenario
from steer.models.latent_model import LatentModel
from steer.writing.config import WritingConfig
from steer.writing.guided import Written
from tests.agents.conftest import OPENING, make_scenario, tiny_model

LOGS = ("events.jsonl", "unguided.jsonl")


class Stop(Exception):
    pass


def files(run: Path, names: Sequence[str] = LOGS) -> list[bytes]:
    return [(run / name).read_bytes() for name in names]


def told(log: Path) -> list[dict[str, Any]]:
    """The events of a log, but for the chain and for which logs lie beside it."""
    return [event.model_dump(exclude={"prev", "arms"}) for event in read_log(log).events]


def turns_of(run: Path, name: str = LOGS[0]) -> list[TurnEvent]:
    return [event for event in read_log(run / name).events if isinstance(event, TurnEvent)]


def stop_at(count: int) -> Callable[[Event, str], None]:
    """A callback that raises at the event of this number, from 1."""
    seen: list[Event] = []

    def on_event(event: Event, arm: str) -> None:
        seen.append(event)
        if len(seen) == count:
            raise Stop

    return on_event


@pytest.fixture(scope="module")
def played(scenario: Scenario, model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A finished run. Tests share it: copy before changing."""
    return run_scenario(scenario, model, tmp_path_factory.mktemp("runs") / "played")


def test_a_run_again_gives_the_same_bytes(
    scenario: Scenario, model: LatentModel, played: RunSummary, tmp_path: Path
) -> None:
    seen: list[tuple[str, str]] = []
    again = run_scenario(scenario, model, tmp_path, on_event=lambda event, arm: seen.append((arm, event.type)))
    names = (*LOGS, "transcript.md", "scenario.yaml")
    assert files(again.path, names) == files(played.path, names)
    logged = {arm: read_log(tmp_path / log).events for arm, log in zip(("guided", "unguided"), LOGS, strict=True)}
    for arm, events in logged.items():
        assert [kind for name, kind in seen if name == arm] == [event.type for event in events]
    # Both arms go side by side: neither is ever more than a turn ahead.
    turns = {"guided": 0, "unguided": 0}
    for arm, kind in seen:
        turns[arm] += kind == "turn"
        assert abs(turns["guided"] - turns["unguided"]) <= 1


def test_seeds_and_turns_can_be_given(
    scenario: Scenario, model: LatentModel, played: RunSummary, tmp_path: Path
) -> None:
    other = run_scenario(scenario, model, tmp_path / "a", seed=6, turns=2, baseline=False)
    assert (other.turns, other.goals[0].unguided) == (2, None)
    assert not (tmp_path / "a" / LOGS[1]).exists()
    assert [t.text for t in turns_of(tmp_path / "a")] != [t.text for t in turns_of(played.path)[:2]]


def test_the_log_tells_what_happened(scenario: Scenario, played: RunSummary) -> None:
    events = read_log(played.path / LOGS[0]).events
    assert isinstance(events[0], OpeningEvent)
    assert isinstance(events[-1], EndEvent)
    turns = turns_of(played.path)
    assert [(t.turn, t.character) for t in turns] == [(1, "ann"), (2, "bob"), (3, "ann"), (4, "bob")]
    assert [t.seed for t in turns] == [t.seed for t in turns_of(played.path, LOGS[1])]
    assert len({t.seed for t in turns}) == len(turns)
    settled = {(e.character, e.goal): (e.turn, e.outcome) for e in events if isinstance(e, GoalEvent)}
    assert settled.keys() == {(c.id, g.id) for c, g in scenario.goals()}
    for summary in played.goals:
        assert settled[summary.character, summary.goal] == (summary.guided.settled, summary.guided.outcome)
        assert len(summary.guided.similarities) == len(turns)
        assert summary.unguided is not None
    assert played.tokens == sum(t.tokens for name in LOGS for t in turns_of(played.path, name))


def test_of_two_runs_in_one_empty_folder_the_second_is_refused(
    model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with monkeypatch.context() as patch:
        # As if another run came between the look into the folder and its first file.
        patch.setattr(
            "agents.simulation.simulation.any", lambda found: bool((out / "scenario.yaml").touch()), raising=False
        )
        with pytest.raises(RunExists, match="taken by another run just now"):
            run_scenario(make_scenario(), model, out)
    assert [file.name for file in out.iterdir()] == ["scenario.yaml"]


def test_goals_matter_to_what_is_written(played: RunSummary) -> None:
    assert [t.ids for t in turns_of(played.path)] != [t.ids for t in turns_of(played.path, LOGS[1])]


def test_weights_of_zero_give_the_unguided_run(model: LatentModel, tmp_path: Path) -> None:
    scenario = make_scenario(planner={"voice_weight": 0, "guidance_scale": 1.5})
    data = scenario.model_dump()
    for character in data["characters"]:
        for goal in character["goals"]:
            goal["weight"] = 0
    run_scenario(Scenario.model_validate(data), model, tmp_path / "run")
    guided, unguided = turns_of(tmp_path / "run"), turns_of(tmp_path / "run", LOGS[1])
    assert any(turn.plan.goal for turn in guided)
    fields = set(TurnEvent.model_fields) - {"plan"}
    assert [t.model_dump(include=fields) for t in guided] == [t.model_dump(include=fields) for t in unguided]


def test_an_unguided_scenario_is_its_own_twin(model: LatentModel, played: RunSummary, tmp_path: Path) -> None:
    run_scenario(make_scenario(planner={"method": "unguided", "reached": 0.9}), model, tmp_path / "run")
    assert told(tmp_path / "run" / LOGS[0]) == told(played.path / LOGS[1])
    assert not (tmp_path / "run" / LOGS[1]).exists()


def test_only_the_story_is_fed(scenario: Scenario, model: LatentModel, tmp_path: Path) -> None:
    """All ids that reach the router's embeddings: contexts as rebuilt from the log, and single tokens just drawn."""
    model.encode("warm")
    model.fused("router")
    fed: list[list[int]] = []

    def spy(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[-1] > 1:
            fed.extend(inputs[0].tolist())

    base: Any = model.peft.get_base_model()
    hook = base.get_input_embeddings().register_forward_pre_hook(spy)
    try:
        run_scenario(scenario, model, tmp_path / "run", baseline=False)
    finally:
        hook.remove()
    visible, contexts = model.to_ids(OPENING), []
    for turn in turns_of(tmp_path / "run"):
        visible += turn.cue_ids
        contexts.append(visible[-48:])
        visible += turn.ids
    assert fed == contexts
    assert len(visible) > 48
    goals = [model.to_ids(goal.text) for _, goal in scenario.goals()]
    joined = model.to_text(visible)
    assert goals and not any(model.to_text(goal) in joined for goal in goals)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11])
def test_stopped_at_any_event_it_resumes_to_the_same_bytes(
    scenario: Scenario, model: LatentModel, played: RunSummary, tmp_path: Path, count: int
) -> None:
    with pytest.raises(Stop):
        run_scenario(scenario, model, tmp_path / "run", on_event=stop_at(count))
    logs = [tmp_path / "run" / log for log in LOGS]
    assert sum(len(read_log(log).events) for log in logs if log.exists()) == count
    rest: list[Event] = []
    summary = resume_run(tmp_path / "run", model, on_event=lambda event, arm: rest.append(event))
    assert files(tmp_path / "run") == files(played.path)
    assert summary.goals == played.goals
    assert len(rest) == 20 - count


def test_cut_off_at_any_byte_it_resumes_to_the_same_bytes(
    scenario: Scenario, model: LatentModel, played: RunSummary, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        run_scenario(scenario, model, tmp_path / "run", on_event=stop_at(10), baseline=False)
    whole = (tmp_path / "run" / LOGS[0]).read_bytes()
    assert told(tmp_path / "run" / LOGS[0]) == told(played.path / LOGS[0])
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    sizes = {0, ends[0] - 1, ends[0], ends[2] + 1, ends[5] + 400, len(whole) - 1, len(whole)}
    for size in sorted(sizes):
        shutil.copytree(tmp_path / "run", tmp_path / str(size))
        (tmp_path / str(size) / LOGS[0]).write_bytes(whole[:size])
        resume_run(tmp_path / str(size), model)
        assert files(tmp_path / str(size), LOGS[:1]) == [whole], f"cut off after {size} bytes"


def test_a_finished_run_is_left_alone(model: LatentModel, played: RunSummary, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(played.path, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    summary = resume_run(run, model, on_event=lambda event, arm: pytest.fail("no event was due"))
    assert (summary.status, played.status) == ("unchanged", "finished")
    assert summary.goals == played.goals
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_folders(scenario: Scenario, model: LatentModel, played: RunSummary, tmp_path: Path) -> None:
    with pytest.raises(RunExists, match="steer resume"):
        run_scenario(scenario, model, played.path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunExists, match="does not exist yet"):
        run_scenario(scenario, model, tmp_path / "file")
    with pytest.raises(RunNotFound, match="holds no run"):
        resume_run(tmp_path, model)
    with pytest.raises(RunNotFound, match="holds no run"):
        resume_run(tmp_path / "none", model)


@pytest.fixture
def stopped(scenario: Scenario, model: LatentModel, tmp_path: Path) -> Path:
    """A run that was stopped when both arms were under way."""
    with pytest.raises(Stop):
        run_scenario(scenario, model, tmp_path / "stopped", on_event=stop_at(6))
    return tmp_path / "stopped"


def test_only_what_belongs_together_is_resumed(stopped: Path, model: LatentModel, tiny_llama: Path) -> None:
    with pytest.raises(RunMismatch, match="encoder_id was 'tiny:untrained-0', now it is 'tiny:untrained-1'"):
        resume_run(stopped, tiny_model(tiny_llama, seed=1))
    changed = (stopped / "scenario.yaml").read_text().replace("seed: 5", "seed: 6")
    (stopped / "scenario.yaml").write_text(changed)
    with pytest.raises(RunMismatch, match="scenario.yaml was changed"):
        resume_run(stopped, model)


def test_weights_are_looked_at_not_only_names(stopped: Path, tiny_llama: Path) -> None:
    other = tiny_model(tiny_llama)
    other.head.w_e.weight.data[0, 0] += 1
    with pytest.raises(RunMismatch, match="weights was"):
        resume_run(stopped, other)


def test_a_changed_log_is_not_resumed(stopped: Path, model: LatentModel) -> None:
    log = stopped / LOGS[0]
    log.write_bytes(log.read_bytes().replace(b'"turn":1', b'"turn":2', 1))
    with pytest.raises(RunDamaged, match=r"events\.jsonl:\d+: the chain is broken"):
        resume_run(stopped, model)


def test_a_run_is_written_by_one_process(stopped: Path, model: LatentModel) -> None:
    with EventLog(stopped / LOGS[0]), pytest.raises(RunBusy, match="another process"):
        resume_run(stopped, model)


@pytest.mark.parametrize("after", [1, 4])
def test_a_full_disk_loses_nothing(
    stopped: Path, model: LatentModel, played: RunSummary, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    real, calls = os.fsync, [0]
    reported: dict[str, list[Event]] = {"guided": [], "unguided": []}
    before = [len(read_log(stopped / log).events) for log in LOGS]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("agents.log.chain.os.fsync", full)
        with pytest.raises(RunWriteError, match=r"No space left on device; all turns before are safe.*steer resume"):
            resume_run(stopped, model, on_event=lambda event, arm: reported[arm].append(event))
    for log, count, told in zip(LOGS, before, reported.values(), strict=True):
        assert list(read_log(stopped / log).events[count:]) == told
    resume_run(stopped, model)
    assert files(stopped) == files(played.path)


def fake_writing(monkeypatch: pytest.MonkeyPatch, model: LatentModel, texts: Sequence[str]) -> None:
    """Let the turns write these texts, one after the other; `|` is the end token."""
    queue = iter(texts)

    def write(
        model: LatentModel, contexts: Sequence[Sequence[int]], *, config: WritingConfig, **_: object
    ) -> list[Written]:
        ids: list[int] = []
        for part in next(queue).partition("|"):
            ids += [model.tokenizer.eos_token_id] if part == "|" else model.to_ids(part)
        zeros = torch.zeros(config.spans, model.latent_config.z_dim)
        return [Written(tuple(ids), "", (), zeros, zeros, False, tuple(contexts[0][-48:]))]

    monkeypatch.setattr(agents.simulation.turn, "write_guided", write)


def test_the_end_token_is_never_visible(model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_writing(monkeypatch, model, [" ran home. |Once", " sat. And then", "|", " No stop here"])
    summary = run_scenario(make_scenario(), model, tmp_path / "run", baseline=False)
    turns = turns_of(tmp_path / "run")
    assert [t.text for t in turns] == [" ran home.", " sat.", "", " No stop here"]
    assert [t.ended for t in turns] == [True, False, True, False]
    assert all(model.tokenizer.eos_token_id not in [*t.cue_ids, *t.ids] for t in turns)
    assert summary.turns == 4
    # An empty turn has no similarities, and settles nothing before its time.
    assert set(turns[2].similarities.values()) == {None}
    assert turns[-1].visible_sha256 == hash_ids(
        model.to_ids("The sun was up.\n\nAnn ran home.\n\nBob sat.\n\nAnn\n\nBob No stop here")
    )


def test_stop_at_end(model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_writing(monkeypatch, model, [" ran.", " sat. Off he|", " ran.", " sat.|"])
    run_scenario(make_scenario(turns=9, stop_at_end=True), model, tmp_path / "run", baseline=False)
    events = read_log(tmp_path / "run" / LOGS[0]).events
    # In turn 2 the end stood behind half a sentence, which was cut away with it.
    assert isinstance(events[-1], EndEvent)
    assert (events[-1].reason, events[-1].turns) == ("story", 4)
    assert {e.turn for e in events if isinstance(e, GoalEvent)} == {2, 4}


def test_reaching(model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A goal written word for word is reached, by whoever wrote it; then the next one is active."""
    fake_writing(monkeypatch, model, [" sat.", ":\nA boat.\nCake! Hm.", " was up top. Up top.", "'s Rain. Rain."])
    scenario = make_scenario(format="prose", planner={"reached": 0.999})
    summary = run_scenario(scenario, model, tmp_path / "run", baseline=False)
    outcomes = {g.goal: (g.guided.outcome, g.guided.settled, g.guided.reached) for g in summary.goals}
    assert outcomes == {
        "sea": ("failed", 2, None),  # "Bob:\nA boat." is not "A boat."
        "hill": ("reached", 3, 3),
        "wet": ("failed", 4, 4),
        "eat": ("reached", 2, 2),
    }
    assert [t.plan.goal for t in turns_of(tmp_path / "run")] == ["sea", "eat", "hill", None]


def test_script(model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_writing(monkeypatch, model, [" Hi there\nBob: No", " Well. Wait", "\n", " Bye."])
    run_scenario(make_scenario(format="script"), model, tmp_path / "run", baseline=False)
    turns = turns_of(tmp_path / "run")
    assert [t.cue + t.text for t in turns] == ["\nAnn: Hi there", "\nBob: Well.", "\nAnn:", "\nBob: Bye."]


def test_characters_without_goals(model: LatentModel, tmp_path: Path) -> None:
    scenario = make_scenario(characters=[{"id": "eve", "name": "Eve"}], turns=1)
    assert run_scenario(scenario, model, tmp_path / "run").goals == ()
