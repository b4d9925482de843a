"""A recipe from the first stage to the package, as one command runs it."""

import json
from pathlib import Path

import pytest
import yaml

from steer.errors import TrainingError
from steer.model import LatentModel
from steer.training.pipeline import calibrate_reached, run_recipe
from steer.training.recipe import load_recipe
from tests.steer.training.test_stages import recipe_of

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    things = ("a red ball", "some bread", "the old tree", "his friend")
    stories = [
        f"There was a fox {i}. He was glad. " + " ".join(f"Then he saw {things[(i + k) % 4]}." for k in range(8))
        for i in range(60)
    ]
    (tmp_path / "stories.txt").write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    recipe = recipe_of(steps=2).model_dump(exclude_none=True)
    recipe["package"] = {"dtype": "float16", "pairs": 2, "description": "A test."}
    recipe["autoencoder"]["span_tokens"] = 24
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path, tmp_path


def test_all_stages_and_then_nothing(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.evaluation.judge_folder", lambda: None)
    path, data = files
    folder = run_recipe(path, data / "out", data)
    assert folder == data / "out" / "package" / "tiny"
    card = (folder / "README.md").read_text(encoding="utf-8")
    figures = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    assert f"| in context | {figures['latents']['nll_own']:.2f} |" in card and "A test." in card
    assert str(data) not in card and str(data) not in (folder / "steer_config.json").read_text(encoding="utf-8")
    model = LatentModel.from_pretrained(str(folder))
    assert model.latent_config.base.name == "base" and model.latent_config.reached_similarity is not None
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert run_recipe(path, data / "out", data) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def with_reach(files: tuple[Path, Path]) -> tuple[Path, Path]:
    recipe = yaml.safe_load(files[0].read_text(encoding="utf-8"))
    recipe["reach"] = {"stories": 30, "steps": 2, "batch_size": 64, "width": 8}
    files[0].write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return files


def test_a_reach_head_that_is_wished_for_later_is_packaged(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steer.evaluation.judge_folder", lambda: None)
    path, data = files
    folder = run_recipe(path, data / "out", data)
    assert LatentModel.from_pretrained(str(folder)).reach is None
    with_reach(files)
    assert run_recipe(path, data / "out", data) == folder
    model = LatentModel.from_pretrained(str(folder))
    assert model.reach is not None and model.reach.config.encoder_id == model.latent_config.encoder_id
    figures = json.loads((folder / "eval.json").read_text(encoding="utf-8"))["reach"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| reach head | {figures['reach']['auc_other']:.3f}" in card and "passages of 30 stories" in card
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    run_recipe(path, data / "out", data)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("stage", "missing"), [("autoencoder", "base"), ("reach", "autoencoder"), ("package", "autoencoder")]
)
def test_a_stage_needs_the_one_before(files: tuple[Path, Path], stage: str, missing: str) -> None:
    path, data = with_reach(files)
    with pytest.raises(TrainingError, match=f"{missing}.*not finished"):
        run_recipe(path, data / "out", data, stages=(stage,))


def test_the_recipe_of_the_packaged_model_is_valid() -> None:
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / "llama-fable-6m.yaml")
    assert recipe.name.startswith("Llama")  # its data's licence asks for that


def test_a_chance_meeting_is_below_the_threshold(tiny_llama: Path) -> None:
    from tests.steer.tiny import tiny_model

    model = tiny_model(tiny_llama, span_tokens=24)
    stories = [f"A {a} {b} ran off." for a in ("red", "old", "sad") for b in ("fox", "hen", "dog")]
    low, high = (calibrate_reached(model, stories, quantile=q) for q in (0.5, 0.99))
    assert -1 <= low <= high <= 1
