"""`steer train`."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from agents.cli.guard import InputError
from agents.cli.models import (
    JsonOption,
    ModelOption,
    OverwriteOption,
    SeedOption,
    load_model,
    quiet_libraries,
    refuse_existing,
)
from agents.cli.output import Output, output, show_logs

UNSEEN = 0.05  # share of the stories kept out by `steer train reach`


# The autoencoder's stage ends with a folder that the other commands can load.
BASE = ("base",)
AUTOENCODER = ("autoencoder", "reach", "package")
ALL = ("base", "autoencoder", "reach", "package")

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as those in recipes/.")]
DataRootOption = Annotated[Path, typer.Option("--data-root", help="Folder that the recipe's paths start from.")]
RunOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints; given again, it is continued.")]
ReportOption = Annotated[
    str, typer.Option("--report-to", help="Where metrics go: none, tensorboard, or as transformers has it.")
]


def train_base(
    ctx: typer.Context,
    recipe: RecipeArgument,
    data_root: DataRootOption,
    out: RunOption,
    report_to: ReportOption = "none",
) -> None:
    """Train the base model of a recipe from scratch. Prints its folder."""
    _run(ctx, recipe, data_root, out, report_to, BASE)


def train_autoencoder(
    ctx: typer.Context,
    recipe: RecipeArgument,
    data_root: DataRootOption,
    out: RunOption,
    report_to: ReportOption = "none",
) -> None:
    """Train everything on top of a recipe's base model, and package it. Prints the packaged folder."""
    _run(ctx, recipe, data_root, out, report_to, AUTOENCODER)


def train_all(
    ctx: typer.Context,
    recipe: RecipeArgument,
    data_root: DataRootOption,
    out: RunOption,
    report_to: ReportOption = "none",
) -> None:
    """Train all stages of a recipe, one after the other; stages that are done are passed over.

    Prints the packaged folder.
    """
    _run(ctx, recipe, data_root, out, report_to, ALL)


def _run(ctx: typer.Context, recipe: Path, data_root: Path, out: Path, report_to: str, stages: tuple[str, ...]) -> None:
    """Run stages of a recipe."""
    say = _talk(ctx)
    from steer.training.pipeline import run_recipe

    if say.lively:
        import transformers.utils.logging

        # Trainer shows its bar at this level only.
        transformers.utils.logging.set_verbosity_warning()
    try:
        folder = run_recipe(recipe, out, data_root, stages=stages, report_to=report_to)
    except KeyboardInterrupt:
        say.note("stopped; the same command continues from the last checkpoint")
        raise
    say.result(str(folder))


def _talk(ctx: typer.Context) -> Output:
    """Training is long: show what it reports, unless told to be quiet."""
    say = output(ctx)
    if not say.quiet and not say.debug:
        show_logs(logging.INFO)
    quiet_libraries(say)
    return say


def train_reach(
    ctx: typer.Context,
    corpus: Annotated[
        list[Path], typer.Option("--corpus", help="Stories: .txt or .jsonl, also .gz, or a folder; may be repeated.")
    ],
    out: RunOption,
    model: ModelOption = None,
    stories: Annotated[int, typer.Option("--stories", min=20, help="Stories to encode, at most.")] = 12_000,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 3000,
    seed: SeedOption = 0,
) -> None:
    """Give a model a reach head, which tells how near an ending is: a potential for `steer search`.

    A twentieth of the stories is kept out for the figures in OUT/done.json. Prints the folder of the model with its
    head.
    """
    say = _talk(ctx)
    texts = [story for path in corpus for story in read_all(path, "--corpus")]
    from steer.checkpoint import fetch, packaged_model
    from steer.training.corpus import is_validation
    from steer.training.reach_stage import train_reach as run
    from steer.training.recipe import ReachRecipe

    train = [text for text in texts if not is_validation(text, UNSEEN)]
    unseen = [text for text in texts if is_validation(text, UNSEEN)]
    if not train or not unseen:
        raise InputError(f"{len(texts)} stories are too few to keep some out for the figures; give more text")
    folder = fetch(model or str(packaged_model()))
    try:
        done = run(folder, ReachRecipe(stories=stories, steps=steps), train, unseen, out, seed=seed)
    except KeyboardInterrupt:
        say.note("stopped; the same command goes on where the encoding of stories was")
        raise
    found = json.loads((out / "done.json").read_text(encoding="utf-8"))["figures"]["reach"]
    say.note(", ".join(f"{name} {value:.3f}" for name, value in found.items() if value is not None))
    say.result(str(done))


def train_preference(
    ctx: typer.Context,
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help='JSON lines with "chosen" and "rejected".')],
    out: Annotated[Path, typer.Option("--out", "-o", help="The head's file, NAME.safetensors.")],
    model: ModelOption = None,
    width: Annotated[int, typer.Option("--width", min=0, help="Of the hidden layer; 0 for few pairs.")] = 64,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of 64 pairs.")] = 500,
    held_out: Annotated[float, typer.Option("--held-out", min=0.01, max=0.5, help="Share for validation.")] = 0.1,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a reward on pairs of texts of which one was preferred. Prints its file and how often it agrees.

    A "context" in a line, what both texts continue, is not scored; pairs of one context are held out together.
    """
    say = _talk(ctx)
    refuse_existing(out, overwrite=overwrite)
    from steer.training.preference_stage import read_preferences
    from steer.training.preference_stage import train_preference as fit

    found = read_preferences(pairs)
    loaded = load_model(say, model)
    with say.status("training"):
        head, figures = fit(loaded, found, width=width, steps=steps, held_out=held_out, seed=seed)
    head.save(out)
    if as_json:
        say.json({"file": str(out), **figures})
        return
    say.note(f"agrees with {figures['accuracy']:.0%} of {figures['held_out']} held-out pairs")
    say.result(str(out))


def read_all(data: Path, option: str) -> list[str]:
    """The stories of an option."""
    from steer.training.corpus import read_stories

    if not data.exists():
        raise InputError(f"{option} {data}: no such file or folder")
    stories = list(read_stories(data))
    if not stories:
        raise InputError(f"{option} {data} holds no stories; expected records separated by lines <|endoftext|>")
    return stories


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="Train a model from a recipe, or a reward for a model.")
    recipe = "recipes/llama-fable-6m.yaml --data-root stories --out runs/llama-fable-6m"
    group.command("all", epilog=f"Example: steer train all {recipe}")(train_all)
    group.command("base", epilog=f"Example: steer train base {recipe}")(train_base)
    group.command("autoencoder", epilog=f"Example: steer train autoencoder {recipe}")(train_autoencoder)
    group.command("reach", epilog="Example: steer train reach --corpus stories.txt --out runs/reach")(train_reach)
    example = "Example: steer train preference pairs.jsonl --out taste.safetensors"
    group.command("preference", epilog=example)(train_preference)
    app.add_typer(group, name="train", epilog=f"Example: steer train all {recipe}")
