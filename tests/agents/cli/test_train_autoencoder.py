"""`steer train autoencoder` on a base without a recipe of its own, and `--dry-run` of the stages."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from steer.training.recipe import load_recipe
from tests.agents.cli.kit import document, error_line, fake_module, steer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny-Base"
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"intermediate_size": 48, "vocab_size": 300, "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "stories.txt").write_text("Once a fox ran.", encoding="utf-8")
    return folder


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What was run, instead of running it."""
    calls: list[Any] = []

    def run_recipe(*arguments: Any, **options: Any) -> Path:
        calls.append((arguments, options))
        return tmp_path / "model"

    fake_module(monkeypatch, "steer.training.pipeline", run_recipe=run_recipe)
    return calls


@pytest.fixture
def unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is estimated before it is run: counting a base takes as long as all the rest of a command."""
    monkeypatch.setattr("steer.training.estimate.plan.plan", lambda *arguments, **options: [])


def begin(out: Path) -> None:
    """As if a stage of the run had got to a checkpoint."""
    (out / "autoencoder" / "checkpoints" / "checkpoint-5").mkdir(parents=True)


@pytest.mark.usefixtures("unplanned")
def test_a_recipe_is_made_written_and_run(base: Path, ran: list[Any], tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "stories.txt"
    settings = ("--steps", 7, "--load-in", "4bit")
    result = steer("train", "autoencoder", "--base", base, "--data", data, "--out", out, *settings)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'model'}\n")
    recipe = load_recipe(out / "recipe.yaml")
    assert (recipe.name, recipe.pretrained) == ("Tiny-Base-latent", str(base))
    assert [source.path for source in recipe.data.sources] == [str(data)]
    assert recipe.autoencoder.train.steps == 7 and recipe.autoencoder.max_context == 296
    assert recipe.autoencoder.load_in == "4bit"
    assert ran[0][0][0] == out / "recipe.yaml"
    # What was edited is kept, and the folder alone is enough to go on.
    text = (out / "recipe.yaml").read_text(encoding="utf-8").replace("steps: 7", "steps: 8")
    (out / "recipe.yaml").write_text(text, encoding="utf-8")
    for options in ((), ("--base", base), ("--base", base, "--data", data)):
        assert steer("train", "autoencoder", "--out", out, *options).exit_code == 0
    assert (out / "recipe.yaml").read_text(encoding="utf-8") == text
    assert len(ran) == 4 and ran[3] == ran[0]


def test_what_does_not_fit_is_told_before_it_is_tried(
    base: Path, ran: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steer.training.estimate.report.free_memory", lambda device: 2**20)
    options = ("--base", base, "--data", tmp_path / "stories.txt", "--out", tmp_path / "out")
    result = steer("train", "autoencoder", *options)
    assert result.exit_code == 0 and len(ran) == 1
    assert "stage autoencoder needs about" in result.stderr and "gradient_checkpointing: true" in result.stderr


@pytest.mark.usefixtures("unplanned")
def test_another_base_or_other_text_needs_another_folder(base: Path, ran: list[Any], tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "stories.txt"
    steer("train", "autoencoder", "--base", base, "--data", data, "--out", out)
    begin(out)
    message = error_line(steer("train", "autoencoder", "--base", "owner/other", "--out", out))
    assert "was begun on the base" in message and "choose another --out" in message
    assert "other --steps or --load-in" in error_line(steer("train", "autoencoder", "--out", out, "--steps", 3))
    message = error_line(steer("train", "autoencoder", "--data", base, "--out", out))
    assert "was begun with --data" in message
    assert len(ran) == 1


@pytest.mark.usefixtures("unplanned")
def test_a_base_replaces_that_of_a_recipe(base: Path, ran: list[Any], tmp_path: Path) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "out"
    settings = {"name": "mine", "pretrained": "owner/first", "data": {"sources": [{"path": "a.txt"}]}}
    settings["autoencoder"] = {"z_dim": 8, "train": {"steps": 3}}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert steer("train", "autoencoder", path, "--base", base, "--out", out).exit_code == 0
    recipe = load_recipe(out / "recipe.yaml")
    assert (recipe.name, recipe.pretrained, recipe.autoencoder.z_dim) == ("mine", str(base), 8)
    assert recipe.data.sources[0].path == "a.txt"
    assert steer("train", "autoencoder", path, "--base", base, "--out", out).exit_code == 0
    settings["autoencoder"]["z_dim"] = 9
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    begin(out)
    assert "another recipe" in error_line(steer("train", "autoencoder", path, "--base", base, "--out", out))


def test_too_little_is_told(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "--base FOLDER_OR_ID and --data FILE" in error_line(steer("train", "autoencoder", "--out", out))
    assert "--data FILE" in error_line(steer("train", "autoencoder", "--base", base, "--out", out))
    missing = steer("train", "autoencoder", "--base", base, "--data", tmp_path / "none.txt", "--out", out)
    assert "no such file or folder" in error_line(missing)
    empty = steer("train", "autoencoder", "--base", tmp_path, "--data", tmp_path / "stories.txt", "--out", out)
    assert "no configuration of a model" in error_line(empty)
    assert not out.exists()


def test_a_dry_run_tells_what_it_takes_and_writes_nothing(base: Path, ran: list[Any], tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "stories.txt"
    options = ("--base", base, "--data", data, "--out", out, "--dry-run")
    found = document(steer("train", "autoencoder", *options, "--json"))["autoencoder"]
    assert found["fits"] is True and found["total"] == sum(found["memory"].values())
    assert found["steps"] * found["tokens_per_step"] == 10_000 * 8 * 6 * 32
    shown = steer("train", "autoencoder", *options)
    assert shown.exit_code == 0 and "memory: activations" in shown.stdout
    assert not ran and not out.exists()


@pytest.mark.parametrize(("head", "numbers"), [("reach", 16 * 6), ("prior", 8 * (32 + 2 * 6))])
def test_a_dry_run_of_a_head(head: str, numbers: int, saved: Path, tmp_path: Path) -> None:
    options = ("--model", saved, "--corpus", tmp_path / "none.txt", "--out", tmp_path / "out", "--stories", 100)
    found = document(steer("train", head, *options, "--dry-run", "--json"))[head]
    assert found["disk"]["latents"] == 2 * 100 * numbers
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_all_stages_with_a_probe(tmp_path: Path, ran: list[Any]) -> None:
    from tests.steer.training.test_stages import recipe_of

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of().model_dump(exclude_none=True)), encoding="utf-8")
    options = (path, "--data-root", tmp_path, "--out", tmp_path / "out", "--dry-run")
    found = document(steer("train", "all", *options, "--probe", "--json"))
    assert list(found) == ["base", "autoencoder"]
    assert all(stage["measured"]["seconds"] > 0 for stage in found.values())
    assert list(document(steer("train", "base", *options, "--json"))) == ["base"]
    assert not ran


@pytest.mark.usefixtures("unplanned")
def test_a_rehearsal_is_of_all_stages(
    base: Path, ran: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def run_smoke(*arguments: Any) -> Path:
        calls.append(arguments)
        return tmp_path / "package"

    fake_module(monkeypatch, "steer.training.smoke_run", run_smoke=run_smoke)
    out, data = tmp_path / "out", tmp_path / "stories.txt"
    result = steer("train", "autoencoder", "--base", base, "--data", data, "--out", out, "--smoke-run")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'package'}\n")
    path = out / "recipe.yaml"
    assert steer("train", "all", path, "--data-root", tmp_path, "--out", out, "--smoke-run").exit_code == 0
    assert calls == [(path, out, Path(".")), (path, out, tmp_path)] and not ran


@pytest.mark.usefixtures("unplanned")
def test_a_run_that_came_to_nothing_may_be_tried_otherwise(base: Path, ran: list[Any], tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "stories.txt"
    (tmp_path / "empty.txt").touch()
    for file, *options in (("empty.txt",), ("stories.txt", "--steps", 30), ("stories.txt", "--load-in", "8bit")):
        given = ("--base", base, "--data", tmp_path / file, "--out", out, *options)
        assert steer("train", "autoencoder", *given).exit_code == 0
    assert steer("train", "autoencoder", "--out", out, "--steps", 40).exit_code == 0
    recipe = load_recipe(out / "recipe.yaml")
    assert (recipe.data.sources[0].path, recipe.autoencoder.train.steps) == (str(data), 40)
    assert recipe.autoencoder.load_in == "8bit" and len(ran) == 4
    edited = (out / "recipe.yaml").read_text(encoding="utf-8").replace("z_dim: 256", "z_dim: 128")
    (out / "recipe.yaml").write_text(edited, encoding="utf-8")
    assert "edit" in error_line(steer("train", "autoencoder", "--out", out, "--steps", 50))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--probe",), "--probe goes with --dry-run"),
        (("--dry-run", "--smoke-run"), "not both"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: tuple[str, ...], message: str, base: Path, ran: list[Any], tmp_path: Path
) -> None:
    given = ("--base", base, "--data", tmp_path / "stories.txt", "--out", tmp_path / "out", *options)
    assert message in error_line(steer("train", "autoencoder", *given))
    assert not ran and not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unplanned")
def test_a_result_as_json_and_a_file_in_the_way(base: Path, ran: list[Any], tmp_path: Path) -> None:
    given = ("--base", base, "--data", tmp_path / "stories.txt", "--out")
    found = document(steer("train", "autoencoder", *given, tmp_path / "out", "--json"))
    assert found == {"folder": str(tmp_path / "model")}
    (tmp_path / "file").touch()
    path = tmp_path / "out" / "recipe.yaml"
    message = error_line(steer("train", "all", path, "--data-root", tmp_path, "--out", tmp_path / "file"))
    assert "is a file; give a folder" in message
