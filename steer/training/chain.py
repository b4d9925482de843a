"""Recipes that continue others: the rounds of a model's training, and where each of them is run."""

from pathlib import Path

from steer.errors import RecipeError
from steer.training.recipe import Recipe, load_recipe

BEFORE = "before"  # folder of the run that a recipe continues, inside its own
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
        chain.insert(0, (path, recipe))
        if recipe.continues is None:
            return chain
        path = path.parent / recipe.continues


def run_folders(chain: list[tuple[Path, Recipe]], out: Path) -> list[Path]:
    """The folder of each recipe's run: `out` of the last, and inside each that of the one before it."""
    return [out.joinpath(*[BEFORE] * depth) for depth in reversed(range(len(chain)))]
