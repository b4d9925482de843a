"""`steer train all`, `base` and `autoencoder`: from recipes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agents.cli._models import talk
from agents.cli._options import JsonOption
from agents.cli._train_estimates import DryRunOption, ProbeOption, dry_run, warn
from agents.cli._train_heads import ABOUT, RunOption, head_command, train_preference
from agents.cli._train_recipes import choose_recipe, keep_recipe
from agents.errors import InputError

# The autoencoder's stage ends with a folder that the other commands can load.
BASE = ("base",)
AUTOENCODER = ("autoencoder", "reach", "prior", "package")
ALL = ("base", "autoencoder", "reach", "prior", "package")


class Held(StrEnum):
    """How a frozen base is held in memory; see `steer.models.quantization`."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    EIGHT = "8bit"
    FOUR = "4bit"


RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as those in recipes/.")]
DataRootOption = Annotated[Path, typer.Option("--data-root", help="Folder that the recipe's paths start from.")]
ReportOption = Annotated[
    str, typer.Option("--report-to", help="Where metrics go: none, tensorboard, or as transformers has it.")
]
SmokeRunOption = Annotated[
    bool,
    typer.Option(
        "--smoke-run",
        help="Run all stages on the real text with a few steps each, in OUT/smoke-run, to see that training would end.",
    ),
]


def train_base(
    ctx: typer.Context,
    recipe: RecipeArgument,
    data_root: DataRootOption,
    out: RunOption,
    report_to: ReportOption = "none",
    dry: DryRunOption = False,
    probe: ProbeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the base model of a recipe from scratch. Prints its folder."""
    if not _dry_run(ctx, recipe, out, BASE, dry=dry, probe=probe, as_json=as_json):
        _run(ctx, recipe, data_root, out, report_to, BASE, as_json=as_json)


def train_autoencoder(
    ctx: typer.Context,
    out: RunOption,
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="A recipe; without, one is made for --base.")
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
    report_to: ReportOption = "none",
    smoke_run: SmokeRunOption = False,
    dry: DryRunOption = False,
    probe: ProbeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train everything on top of a base model, and package it. Prints the packaged folder.

    Without RECIPE settings go by the base's size; they are written to OUT/recipe.yaml.
    """
    _check_options(dry=dry, probe=probe, smoke_run=smoke_run)
    if recipe is not None and not (base or data or steps or load_in):
        if not _dry_run(ctx, recipe, out, AUTOENCODER, dry=dry, probe=probe, as_json=as_json):
            _run(ctx, recipe, data_root, out, report_to, AUTOENCODER, as_json=as_json, smoke_run=smoke_run)
        return
    say = talk(ctx)
    chosen, path = choose_recipe(recipe, base, data or (), out, steps=steps, load_in=load_in and load_in.value)
    if dry:
        dry_run(say, chosen, path, AUTOENCODER, out, with_probe=probe, as_json=as_json)
        return
    if path != recipe and keep_recipe(say, chosen, path):
        warn(say, chosen, path, AUTOENCODER, out)
    _run(ctx, path, data_root, out, report_to, AUTOENCODER, as_json=as_json, smoke_run=smoke_run)


def train_all(
    ctx: typer.Context,
    recipe: RecipeArgument,
    data_root: DataRootOption,
    out: RunOption,
    report_to: ReportOption = "none",
    smoke_run: SmokeRunOption = False,
    dry: DryRunOption = False,
    probe: ProbeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train all stages of a recipe, one after the other; stages that are done are passed over.

    Prints the packaged folder.
    """
    _check_options(dry=dry, probe=probe, smoke_run=smoke_run)
    if not _dry_run(ctx, recipe, out, ALL, dry=dry, probe=probe, as_json=as_json):
        _run(ctx, recipe, data_root, out, report_to, ALL, as_json=as_json, smoke_run=smoke_run)


def _check_options(*, dry: bool, probe: bool, smoke_run: bool) -> None:
    """Refuse options that would do nothing."""
    if probe and not dry:
        raise InputError("--probe goes with --dry-run: it times some steps and trains nothing")
    if dry and smoke_run:
        raise InputError("give --dry-run (what would it take?) or --smoke-run (would it end?), not both")


def _dry_run(
    ctx: typer.Context, recipe: Path, out: Path, stages: tuple[str, ...], *, dry: bool, probe: bool, as_json: bool
) -> bool:
    """Estimate stages of a recipe, if that is what was asked for. Returns whether it was."""
    _check_options(dry=dry, probe=probe, smoke_run=False)
    if dry:
        from steer.training.recipe import load_recipe

        dry_run(talk(ctx), load_recipe(recipe), recipe, stages, out, with_probe=probe, as_json=as_json)
    return dry


def _run(
    ctx: typer.Context,
    recipe: Path,
    data_root: Path,
    out: Path,
    report_to: str,
    stages: tuple[str, ...],
    *,
    as_json: bool,
    smoke_run: bool = False,
) -> None:
    """Run stages of a recipe, or smoke-run all of them."""
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

            folder = run_smoke(recipe, out, data_root)
        else:
            folder = run_recipe(recipe, out, data_root, stages=stages, report_to=report_to)
    except KeyboardInterrupt:
        say.note(_stopped(out, smoke_run=smoke_run))
        raise
    if as_json:
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
