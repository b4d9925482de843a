"""`steer train`, `eval`, `doctor` and `schema`: what they hand on, and what they say."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from agents.cli import doctor as doctor_module
from agents.cli._app import load_command
from agents.cli._output import Output
from agents.cli.doctor import Finding
from agents.scenarios.schema import scenario_schema
from steer.errors import CorpusError
from steer.training.pipeline import STAGES
from tests.agents.cli.kit import SPAN, document, error_line, fake_module, steer

FIGURES = {
    "latents": {"nll_own": 2.5, "active_units": 12},
    "endings": {
        "pairs": 7,
        "spans": 6,
        "temperature": 0.7,
        "arms": {
            "annealed": {"nearest": (0.5, 0.25, 0.75), "nearest_five": (1.0, 1.0, 1.0), "base_nll": 1.25},
            "unguided": {"nearest": (float("nan"), 0, 1), "nearest_five": (0.5, 0.0, 1.0), "base_nll": 1.0},
        },
    },
}


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    return saved


# -- train -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "stages"),
    [("base", ("base",)), ("autoencoder", STAGES[1:]), ("all", STAGES)],
)
def test_train_runs_the_stages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str, stages: tuple[str, ...]
) -> None:
    calls: list[Any] = []

    def run_recipe(*arguments: Any, **options: Any) -> Path:
        calls.append((arguments, options))
        return tmp_path / "model"

    fake_module(monkeypatch, "steer.training.pipeline", run_recipe=run_recipe)
    options = ("--data-root", tmp_path, "--out", tmp_path / "out", "--report-to", "tensorboard")
    result = steer("train", stage, "recipe.yaml", *options)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'model'}\n")
    arguments = (Path("recipe.yaml"), tmp_path / "out", tmp_path)
    assert calls == [(arguments, {"stages": stages, "report_to": "tensorboard"})]


def test_train_tells_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_recipe(*arguments: Any, **options: Any) -> Path:
        raise KeyboardInterrupt

    fake_module(monkeypatch, "steer.training.pipeline", run_recipe=run_recipe)
    result = steer("train", "all", "recipe.yaml", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "stopped before a checkpoint" in result.stderr
    for stage, number in (("base", 40), ("autoencoder", 20), ("rehearsal/base", 60)):
        (tmp_path / "out" / stage / "checkpoints" / f"checkpoint-{number}").mkdir(parents=True)
    (tmp_path / "out" / "autoencoder" / "done.json").touch()  # its checkpoints are of no more use
    result = steer("train", "all", "recipe.yaml", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert result.stderr.splitlines()[0].endswith("base/checkpoints/checkpoint-40")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    message = error_line(steer("train", "base", tmp_path / "none.yaml", "--data-root", tmp_path, "--out", tmp_path))
    assert "cannot read recipe" in message


def test_parts_of_train_have_examples_that_parse() -> None:
    group = load_command("train")
    assert set(group.commands) == {"all", "base", "autoencoder", "reach", "prior", "preference"}
    for name, command in group.commands.items():
        words = shlex.split(command.epilog.removeprefix("Example: "))
        assert words[:3] == ["steer", "train", name]
        command.make_context(name, words[3:], resilient_parsing=False)


def test_train_reach_gives_a_model_its_head(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.evaluation.evaluate.judge_folder", lambda: None)
    monkeypatch.setattr("steer.evaluation.judge.judge_folder", lambda: None)
    data = tmp_path / "stories.txt"
    stories = [f"The fox {i} saw a hen. It ran home! Was it glad? A hen sat. It was fun. The end." for i in range(150)]
    data.write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    options = ("--corpus", data, "--stories", 40, "--steps", 3)
    result = steer("train", "reach", "--model", folder, *options, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out' / 'model'}\n"), result.stderr
    assert "auc_other" in result.stderr
    found = document(steer("eval", tmp_path / "out" / "model", "--data", data, "--pairs", 2, "--json"))
    assert found["reach"]["calibration"]["spans"] == 6 and found["quality"]["similarity"] == "encoder"
    message = error_line(steer("train", "reach", "--corpus", tmp_path / "none.txt", "--out", tmp_path / "x"))
    assert "none.txt: no such file" in message


def test_train_preference_writes_a_head(folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"chosen": f"zzz {i}", "rejected": f"aaa {i}", "context": f"{i}"}) for i in range(30)]
    pairs.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "taste.safetensors"
    command = ("train", "preference", pairs, "--model", folder, "--out", out, "--width", 0, "--steps", 30)
    result = steer(*command)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.stderr
    assert "held-out pairs" in result.stderr
    assert "exists; choose another name, or pass --overwrite" in error_line(steer(*command))
    assert document(steer(*command, "--overwrite", "--json"))["pairs"] == 30
    pairs.write_text(lines[0] + "\n{}", encoding="utf-8")
    assert "pairs.jsonl line 2: expected an object" in error_line(steer(*command, "--overwrite"))


# -- eval --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the evaluation; the list holds what it was called with."""
    calls: list[Any] = []

    def evaluate(model: Any, stories: list[str], *, pairs: int, seed: int, progress: Any) -> dict[str, Any]:
        progress("latents", 1, 2)
        calls.append((model.span_tokens, stories, pairs, seed))
        return FIGURES

    fake_module(monkeypatch, "steer.evaluation.evaluate", evaluate=evaluate)
    return calls


def test_eval_hands_the_stories_on(folder: Path, tmp_path: Path, measured: list[Any]) -> None:
    stories = tmp_path / "stories.txt"
    stories.write_text("One.\n<|endoftext|>\nTwo.\n", encoding="utf-8")
    answer = document(steer("eval", folder, "--data", stories, "--pairs", 7, "--seed", 3, "--json"))
    assert measured == [(SPAN, ["One.", "Two."], 7, 3)]
    assert answer["latents"] == {"nll_own": 2.5, "active_units": 12}
    assert answer["endings"]["arms"]["unguided"]["nearest"] == [None, 0, 1]
    shown = steer("eval", folder, "--data", stories).stdout.splitlines()
    told = dict(re.split(r"\s{2,}", line.strip()) for line in shown if "  " in line.strip())
    assert told["NLL in context: own / null / wrong latent"] == "2.50 / - / -"
    assert told["annealed: nearest to its goal"] == "50% (25% to 75%)"
    assert told["unguided: nearest to its goal"] == "-"
    assert told["Endings"] == "7 pairs, 6 spans, temperature 0.7"


def test_eval_without_data_shows_the_figures_that_came_with_the_model(
    folder: Path, tmp_path: Path, measured: list[Any]
) -> None:
    assert "give --data FILE" in error_line(steer("eval", folder))
    import shutil

    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    (whole / "eval.json").write_text('{"latents": {"kl": 90.5}}', encoding="utf-8")
    assert document(steer("eval", whole, "--json")) == {"latents": {"kl": 90.5}}
    assert "KL divergence, nats per span  90" in steer("eval", whole).stdout
    assert measured == []


def test_eval_bad_data(folder: Path, tmp_path: Path, measured: list[Any]) -> None:
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    assert "no such file or folder" in error_line(steer("eval", folder, "--data", tmp_path / "none.txt"))
    assert "holds no stories" in error_line(steer("eval", folder, "--data", tmp_path / "empty.txt"))
    assert measured == []


def test_eval_errors_of_the_library_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*arguments: Any, **options: Any) -> dict[str, Any]:
        raise CorpusError("only 3 stories are long enough")

    fake_module(monkeypatch, "steer.evaluation.evaluate", evaluate=evaluate)
    (tmp_path / "stories.txt").write_text("One.\n", encoding="utf-8")
    assert "only 3 stories" in error_line(steer("eval", folder, "--data", tmp_path / "stories.txt"))


# -- doctor ------------------------------------------------------------------------------------------------------------


def test_doctor_finds_this_installation_in_order(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = document(steer("doctor", "--model", folder, "--json"))
    checks = {check["name"]: check for check in answer["checks"]}
    assert answer["ok"]
    names = {"python", "threads", "CUDA", "C++ compiler", "model", "working folder", "extra judge", "extra train"}
    assert set(checks) == {*names, *doctor_module.NEEDED}
    assert "wrote 16 tokens" in checks["model"]["detail"]
    assert list(tmp_path.iterdir()) == []
    assert "model" in steer("doctor", "--model", folder).stdout


def test_doctor_exits_with_1_where_something_needed_is_broken(tmp_path: Path) -> None:
    result = steer("doctor", "--model", tmp_path, "--json")
    assert result.exit_code == 1
    broken = [check for check in json.loads(result.stdout)["checks"] if check["state"] == "broken"]
    assert [check["name"] for check in broken] == ["model"]
    assert "CheckpointError" in broken[0]["detail"]


def test_doctor_survives_broken_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        if name in ("peft", "torch"):
            raise ImportError(f"no {name} here\nsecond line")
        return "1.0"

    monkeypatch.setattr(doctor_module, "_version", broken)
    findings = {finding.name: finding for finding in doctor_module.examine(Output())}
    assert findings["peft"] == Finding("peft", "broken", "ImportError: no peft here")
    assert "model" not in findings and "threads" not in findings
    assert findings["working folder"].state == "ok"


def test_what_can_be_done_without_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    compiler, extra = doctor_module._compiler(), doctor_module._extra("judge", "somewhere")
    assert (compiler.state, extra.state) == ("missing", "missing")
    assert "pip install 'steer[judge]'" in extra.detail


# -- schema ------------------------------------------------------------------------------------------------------------


def test_schema_is_the_packages_own() -> None:
    assert document(steer("schema")) == json.loads(json.dumps(scenario_schema()))
