"""`steer train all`, `base` and `autoencoder`: from recipes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agents.cli._models import talk
from agents.cli._options import JsonOption, unfold
from agents.cli._train_estimates import DryRunOption, ProbeOption, dry_run, warn
from agents.cli._train_heads import ABOUT, RunOption, head_command, train_preference
from agents.cli._train_recipes import choose_recipe, keep_recipe
from agents.errors import InputError

# The autoencoder's stage ends with a folder that the other commands can load.
BASE = ("base",)
AUTOENCODER = ("autoencoder", "reach", "prior", "package")
ALL = ("base", "autoencoder", "reach", "prior", "package")


Held = Literal["float32", "bfloat16", "8bit", "4bit"]  # a frozen base in memory; see `steer.models.quantization`

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as those in recipes/.")]
DataRootOption = Annotated[Path, typer.Option("--data-root", help="Folder that the recipe's paths start from.")]
SmokeRunOption = Annotated[
    bool,
    typer.Option(
        "--smoke-run",
        help="Run all stages on the real text with a few steps each, in OUT/smoke-run, to see that training would end.",
    ),
]


@dataclass(frozen=True)
class RunOptions:
    """What all commands that train from recipes take.

    Raises:
        InputError: options that would do nothing.
    """

    out: RunOption
    report_to: Annotated[
        str, typer.Option("--report-to", help="Where metrics go: none, tensorboard, or as transformers has it.")
    ] = "none"
    dry: DryRunOption = False
    probe: ProbeOption = False
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        if self.probe and not self.dry:
            raise InputError("--probe goes with --dry-run: it times some steps and trains nothing")


@unfold
def train_base(ctx: typer.Context, recipe: RecipeArgument, data_root: DataRootOption, options: RunOptions) -> None:
    """Train the base model of a recipe from scratch. Prints its folder."""
    _go(ctx, recipe, data_root, options, BASE)


@unfold
def train_all(
    ctx: typer.Context,
    recipe: RecipeArgument,
    data_root: DataRootOption,
    options: RunOptions,
    smoke_run: SmokeRunOption = False,
) -> None:
    """Train all stages of a recipe, one after the other; stages that are done are passed over.

    Prints the packaged folder.
    """
    _go(ctx, recipe, data_root, options, ALL, smoke_run=smoke_run)


@unfold
def train_autoencoder(
    ctx: typer.Context,
    options: RunOptions,
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="A recipe; without, one is made for --base.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Folder or hub id of a causal LM, in place of the recipe's."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Stories: .txt or .jsonl, also .gz, or a folder; may be repeated."),
    ] = None,
    data_root: DataRootOption = Path("."),
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of training.")] = None,
    load_in: Annotated[
        Held | None, typer.Option("--load-in", help="How the frozen base is held; 4bit and 8bit need bitsandbytes.")
    ] = None,
    smoke_run: SmokeRunOption = False,
) -> None:
    """Train everything on top of a base model, and package it. Prints the packaged folder.

    Without RECIPE settings go by the base's size; they are written to OUT/recipe.yaml.
    """
    if recipe is not None and not (base or data or steps or load_in):
        _go(ctx, recipe, data_root, options, AUTOENCODER, smoke_run=smoke_run)
        return
    say, out = talk(ctx), options.out
    chosen, path = choose_recipe(recipe, base, data or (), out, steps=steps, load_in=load_in)
    if not options.dry and path != recipe and keep_recipe(say, chosen, path):
        warn(say, chosen, path, AUTOENCODER, out)
    _go(ctx, path, data_root, options, AUTOENCODER, smoke_run=smoke_run, recipe=chosen)


def _go(
    ctx: typer.Context,
    path: Path,
    data_root: Path,
    options: RunOptions,
    stages: tuple[str, ...],
    *,
    smoke_run: bool = False,
    recipe: Any = None,
) -> None:
    """Estimate stages of a recipe, run them, or smoke-run all of them; `recipe` is that of a file yet to be written."""
    out = options.out
    if options.dry and smoke_run:
        raise InputError("give --dry-run (what would it take?) or --smoke-run (would it end?), not both")
    if options.dry:
        from steer.training.recipe import load_recipe

        recipe = recipe or load_recipe(path)
        dry_run(talk(ctx), recipe, path, stages, out, with_probe=options.probe, as_json=options.as_json)
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    say = talk(ctx)
    from steer.training.pipeline import run_recipe

    if say.lively:
        import transformers.utils.logging

        # Trainer shows its bar at this level only.
        transformers.utils.logging.set_verbosity_warning()
    try:
        if smoke_run:
            from steer.training.smoke_run import run_smoke

            folder = run_smoke(path, out, data_root)
        else:
            folder = run_recipe(path, out, data_root, stages=stages, report_to=options.report_to)
    except KeyboardInterrupt:
        say.note(_stopped(out, smoke_run=smoke_run))
        raise
    if options.as_json:
        say.json({"folder": str(folder)})
    else:
        say.result(str(folder))


def _stopped(out: Path, *, smoke_run: bool) -> str:
    """Where the same command would begin after Ctrl-C."""
    from steer.training.chain import SMOKE_RUN
    from steer.training.stage import DONE

    if smoke_run:
        return "stopped; a smoke run begins anew each time"
    own = (path for path in out.glob("**/checkpoint-*") if SMOKE_RUN not in path.relative_to(out).parts)
    found = [path for path in own if not (path.parents[1] / DONE).exists()]
    if not found:
        return (
            "stopped before a checkpoint; the same command passes over stages that are done and begins this one again"
        )
    last = max(found, key=lambda path: path.stat().st_mtime)
    return f"stopped; the same command goes on from the last checkpoint, {last}"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="Train a model from a recipe, or a head for a model.")
    recipe = "recipes/llama-fable-6m.yaml --data-root stories --out runs/llama-fable-6m"
    group.command("all", epilog=f"Example: steer train all {recipe}")(train_all)
    group.command("base", epilog=f"Example: steer train base {recipe}")(train_base)
    group.command("autoencoder", epilog=f"Example: steer train autoencoder {recipe}")(train_autoencoder)
    for head in ABOUT:
        example = f"Example: steer train {head} --corpus stories.txt --out runs/{head}"
        group.command(head, epilog=example)(head_command(head))
    example = "Example: steer train preference pairs.jsonl --out taste.safetensors"
    group.command("preference", epilog=example)(train_preference)
    app.add_typer(group, name="train", epilog=f"Example: steer train all {recipe}")
