"""A smoke run: all of a recipe on its real text with few steps, to see in minutes that hours of training would end.

What shows itself late otherwise shows itself here: text that is not there, a head that the stories cannot feed, a
package that does not fit on the disk.
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState

from steer.errors import TrainingError
from steer.training.chain import SMOKE_RUN, load_chain
from steer.training.defaults import write_recipe
from steer.training.pipeline import run_recipe
from steer.training.recipe import MiniHFRecipe, Recipe, TrainRecipe

logger = logging.getLogger(__name__)

RECIPES = "recipes"  # inside that: the shortened ones
STEPS = 8
STORIES = 64  # for the heads
PAIRS = 4  # of the evaluation


def run_smoke(recipe_path: str | Path, out: Path, data_root: Path, *, steps: int = STEPS) -> Path:
    """Run all stages of a recipe, and of those that it continues, with few steps, anew each time.

    Nothing of it is used by the real run, whose folder is `out` itself.

    Args:
        recipe_path, data_root: see `run_recipe`.
        out: folder of the run that is tried; the smoke run and its recipes are written to `SMOKE_RUN` inside it.
        steps: of each stage, at most.

    Returns:
        The packaged folder: a model as the real one will be, but untrained.

    Raises:
        RecipeError, CorpusError, TrainingError: what the real run would raise; or something else is in the way.
    """
    folder, chain = out / SMOKE_RUN, load_chain(recipe_path)
    begin = time.monotonic()
    files = [folder / RECIPES / f"{number}-{path.name}" for number, (path, _) in enumerate(chain, 1)]
    if PartialState().is_main_process:
        if folder.exists() and not (folder / RECIPES).is_dir():
            raise TrainingError(f"{folder} is no smoke run; move it away, or choose another folder for the run")
        shutil.rmtree(folder, ignore_errors=True)
        for file, earlier, (_, recipe) in zip(files, [None, *files], chain, strict=False):
            small = shortened(recipe, steps).model_copy(update={"continues": earlier and earlier.name})
            write_recipe(small, file, f"A smoke run of {recipe.name}.")
    PartialState().wait_for_everyone()
    package = run_recipe(files[-1], folder, data_root)
    logger.info("the smoke run went through in %d s; its model is in %s", time.monotonic() - begin, package)
    return package


def shortened(recipe: Recipe, steps: int = STEPS) -> Recipe:
    """A recipe with few steps, stories and pairs; all that shapes, memory and text depend on is as it was."""
    latent = recipe.autoencoder
    changes: dict[str, Any] = {"train": _few(latent.train, steps)}
    if isinstance(latent, MiniHFRecipe):
        changes["router"] = _few(latent.router, steps)
    parts: dict[str, Any] = {"autoencoder": latent.model_copy(update=changes)}
    if recipe.base is not None:
        parts["base"] = recipe.base.model_copy(update={"train": _few(recipe.base.train, steps)})
    for name in ("reach", "prior"):
        if (head := getattr(recipe, name)) is not None:
            few = {"stories": min(head.stories, STORIES), "steps": min(head.steps, steps)}
            parts[name] = head.model_copy(update=few)
    parts["package"] = recipe.package.model_copy(update={"pairs": min(recipe.package.pairs, PAIRS)})
    return recipe.model_copy(update=parts)


def _few(train: TrainRecipe, steps: int) -> TrainRecipe:
    """So few steps, with one evaluation and one checkpoint, at their end, and no minutes of compiling for them."""
    few = min(train.steps, steps)
    changes: dict[str, Any] = {
        "steps": few,
        "warmup_steps": min(train.warmup_steps, few // 2),
        "eval_every": few,
        "save_every": few,
        "compile": "on" if train.compile == "on" else "off",
    }
    return train.model_copy(update=changes)
