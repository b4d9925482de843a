"""A recipe for a base that comes without one: settings by the base's size.

The smallest size has the settings of the packaged model, which were measured. The others follow what LoRA needs as
bases grow (a lower rate, a lower rank) and the width of BigVAE's latents (768 on 7 billion parameters); take them as a
start. The recipe is written into the run's folder, where it can be read and edited.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from steer.errors import RecipeError
from steer.files import write_atomic
from steer.models.quantization import LoadIn
from steer.training.recipe import Recipe, SourceRecipe

SPANS, SPAN_TOKENS, SOFT_TOKENS = 6, 32, 4
CONTEXTS, MAX_CONTEXT = [24, 64, 160], 320


@dataclass(frozen=True)
class Size:
    """Settings for bases below a number of parameters; rows of the table in `docs/training.md`."""

    below: float
    z_dim: int
    rank: int
    learning_rate: float
    batch_size: int
    accumulation: int
    steps: int
    load_in: LoadIn
    checkpointing: bool


SIZES = (
    Size(50e6, 256, 64, 1.5e-3, 8, 1, 10_000, "float32", False),
    Size(250e6, 256, 64, 1e-3, 8, 1, 8000, "float32", False),
    Size(1e9, 512, 32, 5e-4, 8, 1, 6000, "bfloat16", False),
    Size(4e9, 512, 32, 3e-4, 4, 2, 6000, "bfloat16", True),
    Size(float("inf"), 768, 32, 2e-4, 2, 4, 6000, "bfloat16", True),
)


def size_of(parameters: int) -> Size:
    """The row of the table for a base."""
    return next(size for size in SIZES if parameters < size.below)


def default_recipe(
    base: str, data: Sequence[Path], parameters: int, *, positions: int | None = None, steps: int | None = None
) -> Recipe:
    """A recipe for the autoencoder stage on a base.

    Args:
        base: folder or hub id; its last part, with `-latent`, becomes the model's name.
        data: files or folders of stories.
        parameters: of the base.
        positions: length of the base's table of positions, where it has one.
        steps: in place of the table's.

    Raises:
        RecipeError: the table of positions has no room for the spans.
    """
    size = size_of(parameters)
    taken = SPANS * (SOFT_TOKENS + SPAN_TOKENS)
    room = MAX_CONTEXT if positions is None else min(MAX_CONTEXT, positions - taken)
    if room < min(CONTEXTS):
        raise RecipeError(
            f"{base} takes {positions} positions, too few for {SPANS} spans of {SPAN_TOKENS} tokens behind some "
            "context; write a recipe with fewer spans"
        )
    return Recipe.model_validate(
        {
            "name": f"{Path(base).name}-latent",
            "data": {"sources": [{"path": str(path)} for path in data]},
            "pretrained": base,
            "autoencoder": {
                "span_tokens": SPAN_TOKENS,
                "z_dim": size.z_dim,
                "soft_tokens": SOFT_TOKENS,
                "max_context": room,
                "lora_rank": size.rank,
                "lora_alpha": size.rank,
                "load_in": size.load_in,
                "spans": SPANS,
                "context_lengths": [length for length in CONTEXTS if length <= room],
                "train": {
                    "steps": steps or size.steps,
                    "batch_size": size.batch_size,
                    "gradient_accumulation_steps": size.accumulation,
                    "learning_rate": size.learning_rate,
                    "weight_decay": 0.0,
                    "gradient_checkpointing": size.checkpointing,
                    "eval_every": 500,
                    "save_every": 500,
                },
            },
            "package": {"dtype": "bfloat16"},
        }
    )


def on_base(recipe: Recipe, base: str | None, data: Sequence[Path] = ()) -> Recipe:
    """A recipe on another base, and on other text, where they are given.

    Raises:
        RecipeError: it continues another recipe, whose base it has and beside which its file must lie.
    """
    if recipe.continues is not None:
        raise RecipeError(f"{recipe.name} continues another recipe; change its settings in its file")
    changes: dict[str, Any] = {} if base is None else {"base": None, "pretrained": base}
    if data:
        sources = [SourceRecipe.model_validate({"path": str(path)}) for path in data]
        changes["data"] = recipe.data.model_copy(update={"sources": sources})
    return recipe.model_copy(update=changes)


def write_recipe(recipe: Recipe, path: Path, about: str) -> None:
    """Write a recipe as YAML, every setting of its sections included, so that defaults that change do not change it.

    Args:
        recipe: the recipe.
        path: the file; its folder is made.
        about: what it is, for the first line. Behind it stands a digest of the rest, see `is_untouched`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_dump(recipe.model_dump(exclude_none=True), sort_keys=False, width=100)
    write_atomic(path, f"# {about} ({_digest(settings)})\n{settings}")


def is_untouched(path: Path) -> bool:
    """Whether a recipe is as `write_recipe` left it, so that nothing is lost if it is written anew."""
    head, _, settings = path.read_text(encoding="utf-8").partition("\n")
    return head.endswith(f"({_digest(settings)})")


def _digest(settings: str) -> str:
    return hashlib.sha256(settings.encode()).hexdigest()[:12]
