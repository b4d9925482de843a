"""`steer train`."""

import json
import logging
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli.estimates import DryRunOption, ProbeOption, dry_run, dry_run_head, warn
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
from agents.cli.recipes import choose_recipe, keep_recipe

UNSEEN = 0.05  # share of the stories kept out by `steer train reach` and `steer train prior`


# The autoencoder's stage ends with a folder that the other commands can load.
BASE = ("base",)
AUTOENCODER = ("autoencoder", "reach", "prior", "package")
ALL = ("base", "autoencoder", "reach", "prior", "package")


class Held(StrEnum):
    """How a frozen base is held in memory; see `steer.quantised`."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    EIGHT = "8bit"
    FOUR = "4bit"


RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as those in recipes/.")]
DataRootOption = Annotated[Path, typer.Option("--data-root", help="Folder that the recipe's paths start from.")]
RunOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints; given again, it is continued.")]
CorpusOption = Annotated[
    list[Path], typer.Option("--corpus", help="Stories: .txt or .jsonl, also .gz, or a folder; may be repeated.")
]
ReportOption = Annotated[
    str, typer.Option("--report-to", help="Where metrics go: none, tensorboard, or as transformers has it.")
]
RehearseOption = Annotated[
    bool,
    typer.Option(
        "--rehearse",
        help="Run all stages on the real text with a few steps each, in OUT/rehearsal, to see that training would end.",
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
    rehearsal: RehearseOption = False,
    dry: DryRunOption = False,
    probe: ProbeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train everything on top of a base model, and package it. Prints the packaged folder.

    Without RECIPE settings go by the base's size; they are written to OUT/recipe.yaml.
    """
    _check_options(dry=dry, probe=probe, rehearsal=rehearsal)
    if recipe is not None and not (base or data or steps or load_in):
        if not _dry_run(ctx, recipe, out, AUTOENCODER, dry=dry, probe=probe, as_json=as_json):
            _run(ctx, recipe, data_root, out, report_to, AUTOENCODER, as_json=as_json, rehearsal=rehearsal)
        return
    say = _talk(ctx)
    chosen, path = choose_recipe(recipe, base, data or (), out, steps=steps, load_in=load_in and load_in.value)
    if dry:
        dry_run(say, chosen, path, AUTOENCODER, out, with_probe=probe, as_json=as_json)
        return
    if path != recipe and keep_recipe(say, chosen, path):
        warn(say, chosen, path, AUTOENCODER, out)
    _run(ctx, path, data_root, out, report_to, AUTOENCODER, as_json=as_json, rehearsal=rehearsal)


def train_all(
    ctx: typer.Context,
    recipe: RecipeArgument,
    data_root: DataRootOption,
    out: RunOption,
    report_to: ReportOption = "none",
    rehearsal: RehearseOption = False,
    dry: DryRunOption = False,
    probe: ProbeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train all stages of a recipe, one after the other; stages that are done are passed over.

    Prints the packaged folder.
    """
    _check_options(dry=dry, probe=probe, rehearsal=rehearsal)
    if not _dry_run(ctx, recipe, out, ALL, dry=dry, probe=probe, as_json=as_json):
        _run(ctx, recipe, data_root, out, report_to, ALL, as_json=as_json, rehearsal=rehearsal)


def _check_options(*, dry: bool, probe: bool, rehearsal: bool) -> None:
    """Refuse options that would do nothing."""
    if probe and not dry:
        raise InputError("--probe goes with --dry-run: it times some steps and trains nothing")
    if dry and rehearsal:
        raise InputError("give --dry-run (what would it take?) or --rehearse (would it end?), not both")


def _dry_run(
    ctx: typer.Context, recipe: Path, out: Path, stages: tuple[str, ...], *, dry: bool, probe: bool, as_json: bool
) -> bool:
    """Estimate stages of a recipe, if that is what was asked for. Returns whether it was."""
    _check_options(dry=dry, probe=probe, rehearsal=False)
    if dry:
        from steer.training.recipe import load_recipe

        dry_run(_talk(ctx), load_recipe(recipe), recipe, stages, out, with_probe=probe, as_json=as_json)
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
    rehearsal: bool = False,
) -> None:
    """Run stages of a recipe, or rehearse all of them."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    say = _talk(ctx)
    from steer.training.pipeline import run_recipe

    if say.lively:
        import transformers.utils.logging

        # Trainer shows its bar at this level only.
        transformers.utils.logging.set_verbosity_warning()
    try:
        if rehearsal:
            from steer.training.rehearsal import rehearse

            folder = rehearse(recipe, out, data_root)
        else:
            folder = run_recipe(recipe, out, data_root, stages=stages, report_to=report_to)
    except KeyboardInterrupt:
        say.note(_stopped(out, rehearsal=rehearsal))
        raise
    if as_json:
        say.json({"folder": str(folder)})
    else:
        say.result(str(folder))


def _stopped(out: Path, *, rehearsal: bool) -> str:
    """Where the same command would begin after Ctrl-C."""
    from steer.training.chain import REHEARSAL
    from steer.training.runner import DONE

    if rehearsal:
        return "stopped; a rehearsal begins anew each time"
    own = (path for path in out.glob("**/checkpoint-*") if REHEARSAL not in path.relative_to(out).parts)
    found = [path for path in own if not (path.parents[1] / DONE).exists()]
    if not found:
        return (
            "stopped before a checkpoint; the same command passes over stages that are done and begins this one again"
        )
    last = max(found, key=lambda path: path.stat().st_mtime)
    return f"stopped; the same command goes on from the last checkpoint, {last}"


def _talk(ctx: typer.Context) -> Output:
    """Training is long: show what it reports, unless told to be quiet."""
    say = output(ctx)
    if not say.quiet and not say.debug:
        show_logs(logging.INFO)
    quiet_libraries(say)
    return say


def train_reach(
    ctx: typer.Context,
    corpus: CorpusOption,
    out: RunOption,
    model: ModelOption = None,
    stories: Annotated[int, typer.Option("--stories", min=20, help="Stories to encode, at most.")] = 12_000,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 3000,
    seed: SeedOption = 0,
    dry: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a model a reach head, which tells how near an ending is: a potential for `steer search`.

    A twentieth of the stories is kept out for the figures in OUT/done.json. Prints the folder of the model with its
    head.
    """
    from steer.training.reach_stage import train_reach as run
    from steer.training.recipe import ReachRecipe

    recipe = ReachRecipe(stories=stories, steps=steps)
    if dry:
        dry_run_head(_talk(ctx), model, recipe, out, as_json=as_json)
        return
    figures = _train_head(ctx, run, recipe, corpus, out, model, seed)
    _tell(ctx, figures["reach"], out, as_json=as_json)


def train_prior(
    ctx: typer.Context,
    corpus: CorpusOption,
    out: RunOption,
    model: ModelOption = None,
    stories: Annotated[int, typer.Option("--stories", min=20, help="Stories to read, at most.")] = 4000,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 3000,
    seed: SeedOption = 0,
    dry: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a model a draft head, which proposes the next latent without writing a span: drafts by head.

    A twentieth of the stories is kept out for the figures in OUT/done.json. Prints the folder of the model with its
    head.
    """
    from steer.training.prior_stage import train_prior as run
    from steer.training.recipe import PriorRecipe

    recipe = PriorRecipe(stories=stories, steps=steps)
    if dry:
        dry_run_head(_talk(ctx), model, recipe, out, as_json=as_json)
        return
    figures = _train_head(ctx, run, recipe, corpus, out, model, seed)
    cosines = {f"cosine {name}": value for name, value in figures["cosine"].items()}
    _tell(ctx, {"nll": figures["nll"], "nll_marginal": figures["nll_marginal"], **cosines}, out, as_json=as_json)


def _train_head(
    ctx: typer.Context,
    run: Callable[..., Path],
    recipe: Any,
    corpus: list[Path],
    out: Path,
    model: str | None,
    seed: int,
) -> dict[str, Any]:
    """Train a head on the stories of a corpus, a twentieth of them kept out. Returns its figures on those."""
    say = _talk(ctx)
    texts = [story for path in corpus for story in read_all(path, "--corpus")]
    from steer.checkpoint import fetch, packaged_model
    from steer.training.corpus import is_validation

    train = [text for text in texts if not is_validation(text, UNSEEN)]
    unseen = [text for text in texts if is_validation(text, UNSEEN)]
    if not train or not unseen:
        raise InputError(f"{len(texts)} stories are too few to keep some out for the figures; give more text")
    try:
        run(fetch(model or str(packaged_model())), recipe, train, unseen, out, seed=seed)
    except KeyboardInterrupt:
        say.note("stopped; the same command goes on where the encoding of stories was")
        raise
    return json.loads((out / "done.json").read_text(encoding="utf-8"))["figures"]


def _tell(ctx: typer.Context, figures: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Say how good a head is, and where the model with it is."""
    say = output(ctx)
    if as_json:
        say.json({"folder": str(out / "model"), **figures})
        return
    say.note(", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None))
    say.result(str(out / "model"))


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
    group.command("prior", epilog="Example: steer train prior --corpus stories.txt --out runs/prior")(train_prior)
    example = "Example: steer train preference pairs.jsonl --out taste.safetensors"
    group.command("preference", epilog=example)(train_preference)
    app.add_typer(group, name="train", epilog=f"Example: steer train all {recipe}")
