"""Recipes that continue others: the rounds of a model's training, and where each of them is run."""

from pathlib import Path

from steer.errors import RecipeError
from steer.training.recipe import Recipe, load_recipe

BEFORE = "before"  # folder of the run that a recipe continues, inside its own
SMOKE_RUN = "smoke-run"  # folder of a recipe's smoke run, inside that of its run
KEPT = ("layout", "z_dim", "soft_tokens", "lora_rank")  # shapes of what is taken over
BEFORE_STAGES = ("base", "autoencoder")  # of a recipe that another continues: its heads would be of no use


def load_chain(path: str | Path) -> list[tuple[Path, Recipe]]:
    """A recipe and all that it continues, with their files, in the order in which they are run: the given one is last.

    Raises:
        RecipeError: one of them is missing or wrong, or a recipe continues itself.
    """
    path = Path(path)
    chain: list[tuple[Path, Recipe]] = []
    seen: list[Path] = []
    while True:
        if (here := path.resolve()) in seen:
            raise RecipeError(f"{' continues '.join(p.name for p in [*seen, here])}: a recipe cannot continue itself")
        seen.append(here)
        recipe = load_recipe(path)
        if chain:
            _check_fit(recipe, *chain[0])
        chain.insert(0, (path, recipe))
        if recipe.continues is None:
            return chain
        path = path.parent / recipe.continues


def _check_fit(before: Recipe, path: Path, recipe: Recipe) -> None:
    """Raise RecipeError where a recipe cannot go on with what the one before it leaves."""
    ours, theirs = recipe.autoencoder, before.autoencoder
    pairs = {f"autoencoder.{name}": (getattr(theirs, name), getattr(ours, name)) for name in KEPT}
    if recipe.base is not None and before.base is not None:
        earlier, later = before.base.architecture, recipe.base.architecture
        pairs |= {f"base.architecture.{name}": (earlier[name], later[name]) for name in earlier if name in later}
    wrong = [f"{name} is {now} in {path.name} and {was}" for name, (was, now) in pairs.items() if was != now]
    if wrong:
        raise RecipeError(f"{'; '.join(wrong)} in {recipe.continues}, which it continues; give them the same values")


def run_folders(chain: list[tuple[Path, Recipe]], out: Path) -> list[Path]:
    """The folder of each recipe's run: `out` of the last, and inside each that of the one before it."""
    return [out.joinpath(*[BEFORE] * depth) for depth in reversed(range(len(chain)))]
