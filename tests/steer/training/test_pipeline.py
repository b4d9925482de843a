"""A recipe from the first stage to the package, as one command runs it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from steer.errors import CorpusError, RecipeError, TrainingError
from steer.models.latent_model import LatentModel
from steer.training.pipeline import calibrate_reached, run_recipe
from steer.training.recipe import MiniHFRecipe, load_recipe
from steer.training.smoke_run import run_smoke, shortened
from steer.training.stage import is_done
from tests.steer.training.test_estimate import minihf_of
from tests.steer.training.test_stages import assert_same_weights, recipe_of

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_files(tmp_path)


def write_files(folder: Path) -> tuple[Path, Path]:
    """A recipe of all stages and the text that it names, in a folder; returns the recipe's file, and the folder."""
    things = ("a red ball", "some bread", "the old tree", "his friend")
    stories = [
        f"There was a fox {i}. He was glad. " + " ".join(f"Then he saw {things[(i + k) % 4]}." for k in range(8))
        for i in range(60)
    ]
    (folder / "stories.txt").write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    recipe = recipe_of(steps=2).model_dump(exclude_none=True)
    recipe["package"] = {"dtype": "float16", "pairs": 2, "description": "A test."}
    recipe["autoencoder"]["span_tokens"] = 24
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path, folder


@pytest.fixture(scope="module", autouse=True)
def unjudged() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steer.evaluation.evaluate.judge_folder", lambda: None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`write_files`, and in `out` beside them the finished run of all stages; nobody writes into it."""
    path, data = write_files(tmp_path_factory.mktemp("finished"))
    run_recipe(path, data / "out", data)
    return path, data


@pytest.fixture(scope="module")
def headed(finished: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run after heads were wished for; nobody writes into it."""
    path, data = with_heads(copy_of(finished, tmp_path_factory.mktemp("headed") / "data"))
    run_recipe(path, data / "out", data)
    return path, data


def copy_of(files: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    shutil.copytree(files[1], folder)
    return folder / files[0].name, folder


def test_all_stages_and_then_nothing(finished: tuple[Path, Path]) -> None:
    path, data = finished
    folder = data / "out" / "package" / "tiny"
    card = (folder / "README.md").read_text(encoding="utf-8")
    figures = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    assert f"own / null / wrong latent | {figures['latents']['nll_own']:.2f} /" in card and "A test." in card
    assert "`steer train all recipe.yaml --data-root CORPUS --out runs/tiny`" in card
    assert str(data) not in card and str(data) not in (folder / "steer_config.json").read_text(encoding="utf-8")
    model = LatentModel.from_pretrained(str(folder))
    assert model.latent_config.base.name == "base" and model.latent_config.reached_similarity is not None
    assert model.reach is None and model.prior is None
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert run_recipe(path, data / "out", data) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def with_heads(files: tuple[Path, Path]) -> tuple[Path, Path]:
    recipe = yaml.safe_load(files[0].read_text(encoding="utf-8"))
    recipe["reach"] = {"stories": 30, "steps": 2, "batch_size": 64, "width": 8}
    recipe["prior"] = {"stories": 30, "steps": 2, "batch_size": 16, "width": 8}
    files[0].write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return files


def test_heads_that_are_wished_for_later_are_packaged(headed: tuple[Path, Path]) -> None:
    path, data = headed
    folder = data / "out" / "package" / "tiny"
    model = LatentModel.from_pretrained(str(folder))
    assert model.reach is not None and model.reach.config.encoder_id == model.latent_config.encoder_id
    assert model.prior is not None and model.prior.config.encoder_id == model.latent_config.encoder_id
    figures = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        f"another story's: head / cosine | {figures['reach']['reach']['auc_other']:.3f} /" in card
        and "passages of 30 stories" in card
    )
    assert f"head / marginal | {figures['prior']['nll']:.2f} /" in card and "spans of 30 stories" in card
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert run_recipe(path, data / "out", data) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("stage", "missing"), [("autoencoder", "base"), ("reach", "autoencoder"), ("package", "autoencoder")]
)
def test_a_stage_needs_the_one_before(files: tuple[Path, Path], stage: str, missing: str) -> None:
    path, data = with_heads(files)
    with pytest.raises(TrainingError, match=f"{missing}.*not finished"):
        run_recipe(path, data / "out", data, stages=(stage,))


def go_on(files: tuple[Path, Path], *, base: bool) -> Path:
    """A recipe that continues that of `files`, with rates so small that nothing moves."""
    recipe = yaml.safe_load(files[0].read_text(encoding="utf-8"))
    still = {"learning_rate": 1e-12, "muon_learning_rate": 1e-12, "weight_decay": 0}
    recipe |= {"name": "tiny2", "continues": files[0].name, "seed": 5}
    recipe["autoencoder"]["train"] |= still
    recipe["base"]["train"] |= still
    if not base:
        del recipe["base"]
    path = files[1] / "next.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.mark.parametrize("base", [True, False])
def test_a_recipe_goes_on_from_another(files: tuple[Path, Path], base: bool) -> None:
    _, data = files
    folder = run_recipe(go_on(files, base=base), data / "out", data)
    before, after = data / "out" / "before", data / "out"
    assert is_done(before / "base") and is_done(before / "autoencoder") and not (before / "package").exists()
    assert (after / "base").exists() == base
    assert_same_weights(before / "autoencoder" / "model", after / "autoencoder" / "model")
    if base:
        assert_same_weights(before / "base" / "model", after / "base" / "model")
        tokenizers = [(run / "base" / "model" / "tokenizer.json").read_text() for run in (before, after)]
        assert tokenizers[0] == tokenizers[1]
    assert LatentModel.from_pretrained(str(folder)).latent_config.base.name == "base"
    card = (folder / "README.md").read_text(encoding="utf-8")
    rounds = [line.count("; then 2 steps") for line in card.splitlines() if line.startswith(("- Base:", "- Encoder"))]
    assert rounds == [int(base), 1] and " minutes on " in card and " CPU thread" in card


def test_what_does_not_fit_cannot_be_continued(files: tuple[Path, Path]) -> None:
    _, data = files
    path = go_on(files, base=True)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, change, message in (
        (
            "base",
            {"architecture": recipe["base"]["architecture"] | {"hidden_size": 64}},
            "hidden_size is 64 in next.yaml and 32 in recipe.yaml",
        ),
        ("autoencoder", {"z_dim": 4}, "z_dim is 4 in next.yaml and 6 in recipe.yaml"),
    ):
        path.write_text(yaml.safe_dump(recipe | {section: recipe[section] | change}), encoding="utf-8")
        with pytest.raises(RecipeError, match=message):
            run_recipe(path, data / f"out-{section}", data)


def test_a_recipe_cannot_continue_itself(files: tuple[Path, Path]) -> None:
    path, data = files
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) | {"continues": "next.yaml"}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (data / "next.yaml").write_text(yaml.safe_dump(recipe | {"continues": path.name}), encoding="utf-8")
    with pytest.raises(RecipeError, match="recipe.yaml continues next.yaml continues recipe.yaml: .* itself"):
        run_recipe(path, data / "out", data)


def test_the_recipe_of_the_packaged_model_is_valid() -> None:
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / "llama-fable-6m.yaml")
    assert recipe.name.startswith("Llama")  # its data's licence asks for that


def test_a_chance_meeting_is_below_the_threshold(tiny_llama: Path) -> None:
    from tests.steer.tiny import tiny_model

    model = tiny_model(tiny_llama, span_tokens=24)
    stories = [f"A {a} {b} ran off." for a in ("red", "old", "sad") for b in ("fox", "hen", "dog")]
    low, high = (calibrate_reached(model, stories, quantile=q) for q in (0.5, 0.99))
    assert low is not None and high is not None and -1 <= low <= high <= 1


def test_without_two_sentences_nothing_is_calibrated(tiny_llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tests.steer.tiny import tiny_model

    model = tiny_model(tiny_llama, span_tokens=24)
    assert calibrate_reached(model, ["no stop here at all", "A red fox ran."]) is None
    assert "1 of 2 stories have a sentence that fits" in caplog.text


def test_too_few_stories_for_the_figures_do_not_lose_the_model(
    files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    path, data = files
    stories = [f"one fox and {i} hens and no stop in all of this long tale of foxes and hens" for i in range(200)]
    (data / "stories.txt").write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    folder = run_recipe(path, data / "out", data)
    figures = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    assert figures.keys() == {"latents"} and "only 0 of" in caplog.text
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "counts as reached: not calibrated." in card and "| NLL in context: own" in card
    assert LatentModel.from_pretrained(str(folder)).latent_config.reached_similarity is None


def test_a_rehearsal_runs_all_rounds_shortly_and_leaves_the_run_alone(files: tuple[Path, Path]) -> None:
    path, data = go_on(with_heads(files), base=False), files[1]
    folder = run_smoke(path, data / "out", data, steps=1)
    run = data / "out" / "smoke-run"
    assert folder == run / "package" / "tiny2" and [p.name for p in (data / "out").iterdir()] == ["smoke-run"]
    first, second = (load_recipe(run / "recipes" / name) for name in ("1-recipe.yaml", "2-next.yaml"))
    assert first.base is not None and second.reach is not None
    assert {r.train.steps for r in (first.base, first.autoencoder, second.autoencoder)} == {1}
    assert (second.continues, second.reach.steps, second.reach.width) == ("1-recipe.yaml", 1, 8)
    assert LatentModel.from_pretrained(str(folder)).reach is not None
    (run / "old").touch()
    (data / "stories.txt").write_text("One story.", encoding="utf-8")
    with pytest.raises(CorpusError):
        run_smoke(path, data / "out", data, steps=1)
    assert not (run / "old").exists()  # anew each time


def test_a_finished_run_refuses_other_settings_and_packages_other_words(
    headed: tuple[Path, Path], tmp_path: Path
) -> None:
    path, data = copy_of(headed, tmp_path / "data")
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))

    def run(**changes: object) -> Path:
        path.write_text(yaml.safe_dump(recipe | changes), encoding="utf-8")
        return run_recipe(path, data / "out", data)

    with pytest.raises(TrainingError, match=r"out/base was .*data.validation_share was .*, now it is 0.3"):
        run(data=recipe["data"] | {"validation_share": 0.3})
    with pytest.raises(TrainingError, match=r"out/reach was .*settings.steps was 2, now it is 3"):
        run(reach=recipe["reach"] | {"steps": 3})
    renamed = run(name="Other", package=recipe["package"] | {"description": "Another test."})
    assert renamed.name == "other" and "Another test." in (renamed / "README.md").read_text(encoding="utf-8")
    (data / "stories.txt").unlink()
    assert run_recipe(path, data / "out", data) == renamed  # what is done needs no text


def test_text_is_looked_for_before_anything_is_trained(files: tuple[Path, Path]) -> None:
    path, data = go_on(files, base=False), files[1]
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    (data / "empty.txt").touch()
    for name, message in (("none.txt", "no file or folder"), ("empty.txt", "holds no stories")):
        recipe["data"]["sources"] = [{"path": name}]
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        with pytest.raises(CorpusError, match=message):
            run_recipe(path, data / "out", data)
    assert not (data / "out").exists()


def test_a_rehearsal_removes_no_folder_but_its_own(files: tuple[Path, Path]) -> None:
    path, data = files
    kept = data / "out" / "smoke-run" / "song.txt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(TrainingError, match="is no smoke run"):
        run_smoke(path, data / "out", data)
    assert kept.exists()


def test_both_steps_of_minihf_are_shortened() -> None:
    recipe = minihf_of("base")
    assert isinstance(recipe.autoencoder, MiniHFRecipe)
    short = shortened(recipe, 1).autoencoder
    assert isinstance(short, MiniHFRecipe)
    assert (short.train.steps, short.router.steps, short.train.warmup_steps) == (1, 1, 0)
    assert short.model_dump(exclude={"train", "router"}) == recipe.autoencoder.model_dump(exclude={"train", "router"})
