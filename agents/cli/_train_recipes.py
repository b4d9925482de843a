"""Which recipe `steer train autoencoder` runs: a file, a file on another base, or one made for a base by its size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.cli._output import Output
from agents.errors import InputError

WRITTEN = "recipe.yaml"  # in the folder of the run


def choose_recipe(
    recipe: Path | None,
    base: str | None,
    data: Sequence[Path],
    out: Path,
    *,
    steps: int | None = None,
    load_in: str | None = None,
) -> tuple[Any, Path]:
    """The recipe of a run, and its file; the file need not be written yet, see `keep_recipe`.

    Args:
        recipe: a file, or None.
        base: folder or hub id of a base, which replaces the recipe's.
        data: files or folders of stories, which replace the recipe's; needed where there is no recipe.
        out: the run's folder. If it was begun without a recipe, it holds the one that was made.
        steps, load_in: in place of the recipe's.

    Raises:
        InputError: too little is given, or other things than the run was begun with.
        RecipeError, ModelNotFound, TrainingError: a bad recipe, or a base that cannot be used.
    """
    from steer.training.defaults import on_base
    from steer.training.recipe import load_recipe

    kept = out / WRITTEN
    base = None if base is None else _absolute(base)
    for path in data:
        if not path.exists():
            raise InputError(f"--data {path}: no such file or folder")
    data = [path.resolve() for path in data]
    # A run that came to nothing, an empty file say, does not hold on to what it was tried with.
    tried = kept.is_file() and _replaceable(kept)
    if recipe is None and kept.is_file() and not (tried and base and data):
        found = load_recipe(kept)
        _compare(found, base, data, out)
        if tried:
            return _with(found, steps, load_in), kept
        if _with(found, steps, load_in) != found:
            raise InputError(f"{out} was begun with other --steps or --load-in; edit {kept}, or choose another --out")
        return found, kept
    if recipe is None:
        if base is None or not data:
            raise InputError("give a RECIPE, or --base FOLDER_OR_ID and --data FILE, or the --out of a begun run")
        return _with(_made(base, data), steps, load_in), kept
    found = _with(on_base(load_recipe(recipe), base, data), steps, load_in)
    if kept.is_file() and not tried and load_recipe(kept) != found:
        raise InputError(
            f"{out} was begun with another recipe, {kept}; leave out RECIPE to go on, or choose another --out"
        )
    return found, kept


def keep_recipe(say: Output, recipe: Any, path: Path) -> bool:
    """Write a recipe that was made into the run's folder. Returns whether it was not there yet."""
    from steer.training.defaults import write_recipe
    from steer.training.recipe import load_recipe

    if path.exists() and (load_recipe(path) == recipe or not _replaceable(path)):
        return False

    made = (
        f"Made by `steer train autoencoder --base {recipe.pretrained}`. To change it, edit it before training begins."
    )
    write_recipe(recipe, path, made)
    say.note(f"the recipe is {path}")
    return True


def _replaceable(kept: Path) -> bool:
    """Whether a recipe that was made can be made anew: nobody edited it, and no stage of its run has got anywhere."""
    from steer.training.defaults import is_untouched
    from steer.training.stage import begun

    return is_untouched(kept) and not any(begun(kept.parent / stage) for stage in ("base", "autoencoder"))


def _with(recipe: Any, steps: int | None, load_in: str | None) -> Any:
    """A recipe with other steps, or its base held otherwise."""
    latent = recipe.autoencoder
    changes: dict[str, Any] = {} if load_in is None else {"load_in": load_in}
    if steps is not None:
        changes["train"] = latent.train.model_copy(update={"steps": steps})
    return recipe.model_copy(update={"autoencoder": latent.model_copy(update=changes)})


def _made(base: str, data: Sequence[Path]) -> Any:
    from steer.training.defaults import default_recipe
    from steer.training.estimate.meta import random_base
    from steer.training.estimate.report import read_config

    config = read_config(base)
    parameters = sum(p.numel() for p in random_base(config).parameters())
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return default_recipe(base, data, parameters, positions=positions)


def _compare(found: Any, base: str | None, data: Sequence[Path], out: Path) -> None:
    """Refuse to go on with a run under other settings than its own."""
    if base is not None and base != found.pretrained:
        raise InputError(f"{out} was begun on the base {found.pretrained}, not {base}; choose another --out")
    sources = [source.path for source in found.data.sources]
    if data and [str(path) for path in data] != sources:
        raise InputError(f"{out} was begun with --data {' '.join(sources)}; choose another --out")


def _absolute(base: str) -> str:
    """A folder by its whole path, since the recipe may be read from elsewhere; a hub id as it is."""
    return str(Path(base).resolve()) if Path(base).is_dir() else base
