"""Whole experiments on a tiny model: fair to all arms, safe to stop, to repeat and to share."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.errors import ExperimentError, RunDamaged, RunExists, RunMismatch
from agents.experiments.forecast import forecast
from agents.experiments.load import load_experiment
from agents.experiments.measures import JudgeContext, Measure
from agents.experiments.pairs.arms import ARMS, Sample, Task, write_unguided
from agents.experiments.pairs.measures import MEASURES
from agents.experiments.pairs.options import Options
from agents.experiments.run import Outcome, open_run, run_experiment
from agents.experiments.tables import markdown
from steer.data.pairs import Pair
from tests.agents.experiments.kit import (
    PAIRS,
    Letters,
    experiment,
    run_slowly,
    write_file,
)
from tests.forked import fork, needs_fork
from tests.steer.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("undrawn")

SLOW = [{"name": "slow", "method": "slow"}]


def samples(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(run: Path, arm: str) -> list[str]:
    return [row["text"] for row in samples(run) if row["arm"] == arm]


def go(folder: Path, model: Any, **changes: Any) -> Outcome:
    return run_experiment(experiment(folder, **changes), folder / "run", lambda: model, open_judge=Letters)


def no_model() -> Any:
    pytest.fail("nothing was to be written")


@pytest.fixture(scope="module")
def done(model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run that is finished."""
    folder = tmp_path_factory.mktemp("done")
    return folder, go(folder, model, seeds=[1, 2])


def test_a_run_holds_every_sample_and_every_number(done: tuple[Path, Outcome]) -> None:
    folder, outcome = done
    rows = samples(folder / "run")
    assert len(rows) == len(outcome.results.items) * 2 * 3 == 6 * 2 * 3
    assert all(row["measures"].keys() == MEASURES.keys() for row in rows)
    assert {path.name for path in outcome.files} >= {"results.json", "table.md", "samples.jsonl", "frontier.png"}
    assert not list((folder / "run" / "claims").iterdir())
    pulled = outcome.results.row("pulled")
    assert pulled is not None
    ranks = [row["measures"]["rank"] for row in rows if row["arm"] == "pulled"]
    assert pulled.measures["rank"].mean == pytest.approx(np.mean(ranks))
    assert pulled.measures["rank"].pairs == 6  # two seeds of a pair are one observation
    written = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
    assert written["rows"][2]["measures"]["rank"]["mean"] == pytest.approx(np.mean(ranks))
    assert (folder / "run" / "table.md").read_text(encoding="utf-8") == markdown(outcome.results)


def test_costs_are_counted(done: tuple[Path, Outcome], model: Any) -> None:
    size = model.span_tokens
    for row in samples(done[0] / "run"):
        assert row["seconds"] > 0
        # A bridge arrives with the last of two spans, which needs no draft; the terminal is encoded, and one draft.
        drafts = 1 if row["arm"] == "pulled" else 0
        assert row["tokens"] == len(row["ids"]) + drafts * size
        assert row["encodes"] == {"plain": 0, "none": 1, "pulled": 1 + drafts}[row["arm"]]


def test_arms_share_contexts_seeds_and_noise(done: tuple[Path, Outcome]) -> None:
    """A pull of weight zero writes what no pull writes, sample by sample; a real pull does not."""
    run = done[0] / "run"
    assert texts(run, "none") == texts(run, "plain") != texts(run, "pulled")
    assert len(set(texts(run, "plain"))) > 6  # the second seed writes something else


def test_the_noise_of_a_pair_does_not_depend_on_chunks_or_arms(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, dict[str, int]] = {"a": {}, "b": {}}

    def spy(task: Task, options: Options) -> list[Sample]:
        name = "a" if task.spans == 1 else "b"
        seen[name] |= {pair.id: seed for pair, seed in zip(task.pairs, task.seeds, strict=True)}
        return write_unguided(task, options)

    monkeypatch.setitem(ARMS, "spy", spy)
    for number, changes in enumerate(({"spans": 1, "chunk": 4}, {"spans": 2, "chunk": 1})):
        (tmp_path / str(number)).mkdir()
        go(tmp_path / str(number), model, arms=[{"name": "spy", "method": "spy"}], **changes)
    assert seen["a"] == seen["b"] and len(set(seen["a"].values())) == 6


def test_a_second_run_writes_nothing_and_says_the_same(done: tuple[Path, Outcome]) -> None:
    folder, first = done
    loaded = load_experiment(folder / "experiment.yaml")
    again = run_experiment(loaded, folder / "run", no_model, open_judge=lambda: pytest.fail("nothing was to be judged"))
    assert (again.written, again.measured, again.cells) == (0, 0, first.cells)
    assert again.results == first.results


def test_a_larger_limit_goes_on(tmp_path: Path, model: Any) -> None:
    first = go(tmp_path, model, limit=4)
    assert (first.results.items, first.written, first.results.facts["group"]) == (("p0", "p1", "p2", "p3"), 6, 6)
    before = texts(tmp_path / "run", "plain")
    second = go(tmp_path, model, limit=6, title="Another title")
    assert (len(second.results.items), second.written) == (6, 3)
    assert texts(tmp_path / "run", "plain")[:4] == before


def test_another_experiment_needs_another_folder(done: tuple[Path, Outcome], tmp_path: Path, model: Any) -> None:
    run = done[0] / "run"
    other = experiment(tmp_path, seeds=[1, 2], spans=3)
    with pytest.raises(RunMismatch, match=r"another experiment: spans was 2, now it is 3; choose another --out"):
        run_experiment(other, run, no_model)
    arms = [{"name": "plain", "method": "unguided"}, {"name": "none", "method": "fixed", "start": 0.2}]
    with pytest.raises(
        RunMismatch, match=r"arms.2.name was 'pulled', now it is not there; arms.1.start was 0.0, now it is 0.2"
    ):
        run_experiment(experiment(tmp_path, seeds=[1, 2], arms=arms), run, no_model)
    same = experiment(tmp_path, seeds=[1, 2])
    (tmp_path / "pairs.jsonl").write_text(
        '{"id": "1", "context": "A", "terminal": "B"}\n{"id": "2", "context": "A", "terminal": "C"}\n', encoding="utf-8"
    )
    with pytest.raises(RunMismatch, match=r"pairs.sha256 was"):
        run_experiment(same, run, no_model)


def test_another_model_needs_another_folder(tmp_path: Path, model: Any, tiny_llama: Path) -> None:
    go(tmp_path, model, limit=2)
    with pytest.raises(RunMismatch, match=r"another model: encoder_id was .*untrained-0"):
        go(tmp_path, tiny_model(tiny_llama, seed=5), limit=4)


def test_folders_that_hold_something_else(tmp_path: Path, model: Any) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("Dear", encoding="utf-8")
    with pytest.raises(RunExists, match="holds something else .letter.txt"):
        go(tmp_path, model)


@pytest.mark.parametrize("renamed", range(3))
def test_a_start_that_was_killed_at_any_rename_is_made_again(tmp_path: Path, model: Any, renamed: int) -> None:
    names = ["pairs.jsonl", "experiment.yaml", "experiment.json"]
    run = tmp_path / "run"
    run.mkdir()
    for name in names[:renamed]:
        (run / name).write_text("half", encoding="utf-8")
    (run / f"{names[renamed]}.part").write_text("half", encoding="utf-8")
    made = experiment(tmp_path)
    assert open_run(made, run, lambda: model).files()["pairs.jsonl"] == (run / "pairs.jsonl").read_text()
    assert open_run(made, run, no_model).experiment == made


def test_changed_pairs_are_told(tmp_path: Path, model: Any) -> None:
    go(tmp_path, model, limit=2)
    path = tmp_path / "run" / "pairs.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("bee", "wasp"), encoding="utf-8")
    with pytest.raises(RunDamaged, match=r"pairs.jsonl was changed"):
        go(tmp_path, model, limit=2)


def long_words(samples: Sequence[Sample], pairs: Sequence[Pair], context: JudgeContext) -> np.ndarray:
    return np.array([float(max((len(w) for w in sample.text.split()), default=0)) for sample in samples])


def test_a_measure_is_a_function_and_a_line(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run takes a new measure from the stored samples, and writes nothing again."""
    before = go(tmp_path, model)
    monkeypatch.setitem(MEASURES, "long_words", Measure(long_words, "text"))
    monkeypatch.setattr("agents.experiments.pairs.kind.write_cell", lambda *_: pytest.fail("written again"))
    after = go(tmp_path, model)
    assert (after.written, after.measured) == (0, before.written)
    assert all(row.measures["long_words"].mean > 0 for row in after.results.rows)
    assert "| long words |" in markdown(after.results)
    assert after.results.rows[0].measures["rank"] == before.results.rows[0].measures["rank"]


def test_arms_and_measures_that_forget_some_are_told(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_some(task: Task, options) -> list[Sample]:  # type: ignore[no-untyped-def]  # as a newcomer would
        return write_unguided(task, options)[1:]

    monkeypatch.setitem(ARMS, "some", write_some)
    with pytest.raises(ExperimentError, match=r"method 'some' gave 1 samples for 2 pairs"):
        go(tmp_path, model, arms=[{"name": "some", "method": "some"}])
    monkeypatch.setitem(MEASURES, "all", Measure(lambda samples, pairs, context: np.zeros(1), "text"))
    (tmp_path / "other").mkdir()
    with pytest.raises(ExperimentError, match=r"measure 'all' gave an array \[1\] for 2 samples"):
        go(tmp_path / "other", model, arms=[{"name": "plain", "method": "unguided"}])


def test_without_a_judge_what_it_would_say_is_left_out_until_it_is_there(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    loaded = experiment(tmp_path)
    blind = run_experiment(loaded, tmp_path / "run", lambda: model, open_judge=lambda: None)
    assert not blind.results.judged and "rank" not in blind.results.measures
    assert "pip install 'steer[judge]'" in markdown(blind.results)
    assert not (tmp_path / "run" / "frontier.png").exists()
    seeing = run_experiment(loaded, tmp_path / "run", lambda: model, open_judge=Letters)
    assert seeing.results.judged and (seeing.written, seeing.measured) == (0, blind.written)
    assert seeing.results.rows[0].measures["tokens"] == blind.results.rows[0].measures["tokens"]


def test_the_prompted_arm_is_told_and_marked_but_scored_like_the_others(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[str] = []
    monkeypatch.setattr(
        "agents.experiments.pairs.writing.write_guided",
        lambda m, contexts, **options: fed.extend(map(m.to_text, contexts)) or real(m, contexts, **options),
    )
    from steer.writing.guided import write_guided as real

    arm = {"name": "told", "method": "prompted", "told": "End: {terminal} "}
    outcome = go(tmp_path, model, arms=[arm], limit=2)
    assert fed == [f"End: {pair.terminal} {pair.context}" for pair in PAIRS[:2]]
    assert outcome.results.arms[0].diegetic and "| told † |" in markdown(outcome.results)
    row = samples(tmp_path / "run")[0]
    assert row["context"] == PAIRS[0].context
    monkeypatch.undo()
    # A context that leaves no room for the goal gives way at its beginning.
    narrow = [dataclasses.replace(PAIRS[0], context="x" * 60 + " tail")]
    seen: list[Any] = []
    monkeypatch.setattr(
        "agents.experiments.pairs.writing.write_guided", lambda m, c, **o: seen.extend(c) or real(m, c, **o)
    )
    from agents.experiments.pairs.arms import write_prompted
    from agents.experiments.pairs.options import PromptedOptions
    from steer.writing.config import WritingConfig

    config = WritingConfig(spans=1, guidance_scale=1)
    write_prompted(Task(model, narrow, narrow, [1], config), PromptedOptions(told="End: {terminal} "))
    text = model.to_text(seen[0])
    assert len(seen[0]) == model.latent_config.max_context
    assert text.startswith("End: A bee. x") and text.endswith(" tail")


def test_searching_arms_keep_their_budget(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    arms = [
        {"name": "plain", "method": "unguided"},
        {"name": "best", "method": "search", "policy": "best_of_n", "budgets": [1, 3]},
        {"name": "tree", "method": "guided-search", "policy": "mcts", "budget": 4, "menu": [{"guidance_scale": 1.5}]},
    ]
    outcome = go(tmp_path, model, arms=arms, limit=2, rewards={"similarity": 1.0})
    assert [arm.name for arm in outcome.results.arms] == ["plain", "best x1", "best x3", "tree"]
    for row in samples(tmp_path / "run"):
        if row["arm"] != "plain":
            budget = {"best x1": 1, "best x3": 3, "tree": 4}[row["arm"]]
            assert 0 < row["tokens"] <= budget * 2 * model.span_tokens
            assert set(row["details"]["components"]) == {"similarity"}
    assert {path.name for path in outcome.files} >= {"success_by_budget.png", "frontier.png"}


def test_a_forecast_counts_what_is_left(tmp_path: Path, model: Any) -> None:
    loaded = experiment(tmp_path)
    fresh = forecast(loaded, model, tmp_path / "run")
    assert (fresh.cells, fresh.done) == (9, 0)
    by_name = {arm.name: arm for arm in fresh.arms}
    assert by_name["plain"].texts == 6 and 0 < by_name["plain"].tokens <= 6 * 2 * model.span_tokens
    assert by_name["pulled"].tokens > by_name["plain"].tokens
    assert fresh.seconds > 0 and fresh.memory > 0 and not by_name["plain"].measured
    assert not (tmp_path / "run").exists()
    outcome = go(tmp_path, model, limit=4)
    rest = forecast(loaded, model, outcome.folder)
    assert rest.done == outcome.written
    assert all(arm.texts == 2 and arm.measured for arm in rest.arms)


# -- processes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """File, run and log of an experiment whose cells take their time."""
    monkeypatch.setitem(ARMS, "slow", write_unguided)
    file = write_file(tmp_path, model=str(saved), chunk=1, seeds=[0, 1], arms=SLOW)
    log = tmp_path / "log"
    log.touch()
    return file, tmp_path / "run", log


def wait_for(log: Path, lines: int) -> None:
    deadline = time.monotonic() + 240
    while len(log.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, "the child did not get so far"
        time.sleep(0.02)


@needs_fork
def test_a_killed_run_goes_on(slow: tuple[Path, Path, Path], tmp_path: Path, saved: Path) -> None:
    file, run, log = slow
    child = fork(tmp_path / "output", run_slowly, *slow)
    wait_for(log, 4)
    child.kill()
    child.join()
    finished = len(list((run / "cells").glob("*.jsonl")))
    assert 3 <= finished < 12 and not (run / "samples.jsonl").exists()
    from steer.models.latent_model import LatentModel

    loaded = load_experiment(file)
    outcome = run_experiment(loaded, run, lambda: LatentModel.from_pretrained(saved), open_judge=Letters)
    assert outcome.written == 12 - finished
    whole = run_experiment(loaded, tmp_path / "whole", lambda: LatentModel.from_pretrained(saved), open_judge=Letters)
    assert texts(whole.folder, "slow") == texts(run, "slow")


@needs_fork
def test_two_processes_share_the_cells(slow: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, run, log = slow
    outputs = [tmp_path / f"output{number}" for number in range(2)]
    children = [fork(output, run_slowly, *slow) for output in outputs]
    for child, output in zip(children, outputs, strict=True):
        child.join(240)
        assert child.exitcode == 0, output.read_text(encoding="utf-8")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) == len({tuple(line[1:]) for line in lines}) == 12  # each cell once
    assert len({line[0] for line in lines}) == 2  # by both
    assert len(samples(run)) == 12
