"""`steer train reach`, `prior` and `preference`: heads for a model that is there already."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli._models import load_model, talk
from agents.cli._options import JsonOption, ModelOption, OverwriteOption, SeedOption, refuse_existing
from agents.cli._output import output
from agents.cli._train_estimates import DryRunOption, dry_run_head
from agents.errors import InputError

UNSEEN = 0.05  # share of the stories kept out by `steer train reach` and `steer train prior`

RunOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoints; given again, it is continued.")]
CorpusOption = Annotated[
    list[Path], typer.Option("--corpus", help="Stories: .txt or .jsonl, also .gz, or a folder; may be repeated.")
]


# What each head is for, and the stories that it is trained on by default.
ABOUT = {
    "reach": ("a reach head, which tells how near an ending is: a potential for searches", 12_000),
    "prior": ("a draft head, which proposes the next latent without writing a span: drafts by head", 4000),
}


def head_command(name: str) -> Callable[..., None]:
    """`steer train reach` or `steer train prior`, as a function that typer takes."""
    about, most = ABOUT[name]

    def command(
        ctx: typer.Context,
        corpus: CorpusOption,
        out: RunOption,
        model: ModelOption = None,
        stories: Annotated[int, typer.Option("--stories", min=20, help="Stories to read, at most.")] = most,
        steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 3000,
        seed: SeedOption = 0,
        dry: DryRunOption = False,
        as_json: JsonOption = False,
    ) -> None:
        from steer.training.heads import HEADS

        kind = HEADS[name]
        recipe = kind.recipe(stories=stories, steps=steps)
        if dry:
            dry_run_head(talk(ctx), model, kind, recipe, out, as_json=as_json)
            return
        figures = _train_head(ctx, kind, recipe, corpus, out, model, seed)
        say = output(ctx)
        if as_json:
            say.json({"folder": str(out / "model"), **figures})
            return
        say.note(", ".join(f"{what} {value:.3f}" for what, value in figures.items() if value is not None))
        say.result(str(out / "model"))

    command.__doc__ = f"""Give a model {about}.

    A twentieth of the stories is kept out for the figures in OUT/done.json. Prints the folder of the model with its
    head.
    """
    return command


def _train_head(
    ctx: typer.Context, kind: Any, recipe: Any, corpus: list[Path], out: Path, model: str | None, seed: int
) -> dict[str, float | None]:
    """Train a head on the stories of a corpus, a twentieth of them kept out. Returns what it is worth on those."""
    say = talk(ctx)
    texts = [story for path in corpus for story in read_all(path, "--corpus")]
    from steer.data.corpus import is_validation
    from steer.models.checkpoint import fetch, packaged_model
    from steer.training.heads.stage import train_head

    train = [text for text in texts if not is_validation(text, UNSEEN)]
    unseen = [text for text in texts if is_validation(text, UNSEEN)]
    if not train or not unseen:
        raise InputError(f"{len(texts)} stories are too few to keep some out for the figures; give more text")
    try:
        train_head(kind, fetch(model or str(packaged_model())), recipe, train, unseen, out, seed=seed)
    except KeyboardInterrupt:
        say.note("stopped; the same command goes on where the encoding of stories was")
        raise
    figures = json.loads((out / "done.json").read_text(encoding="utf-8"))["figures"]
    if kind.name == "reach":
        return figures["reach"]
    cosines = {f"cosine {name}": value for name, value in figures["cosine"].items()}
    return {"nll": figures["nll"], "nll_marginal": figures["nll_marginal"], **cosines}


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
    say = talk(ctx)
    refuse_existing(out, overwrite=overwrite)
    from steer.training.heads.preference import read_preferences
    from steer.training.heads.preference import train_preference as fit

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
    from steer.data.corpus import read_stories

    if not data.exists():
        raise InputError(f"{option} {data}: no such file or folder")
    stories = list(read_stories(data))
    if not stories:
        raise InputError(f"{option} {data} holds no stories; expected records separated by lines <|endoftext|>")
    return stories
