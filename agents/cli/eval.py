"""`steer eval`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli._models import load_model
from agents.cli._options import JsonOption, SeedOption
from agents.cli._output import output
from agents.cli._train_heads import read_all
from agents.errors import InputError

EXAMPLE = "steer eval --data stories.txt --json"


def command(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model folder or hub id; else the packaged model.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Stories: .txt or .jsonl, also .gz, or a folder. Without: the figures of its card.",
        ),
    ] = None,
    pairs: Annotated[
        int, typer.Option("--pairs", min=2, help="Endings to write and tell apart; also spans, paths and groups.")
    ] = 100,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on stories that it has not seen.

    NLL with a span's own latent, none, and another span's; spans written again; lines between latents and their
    averages; one latent in two contexts; steered endings told apart. The samples are in --json.
    """
    say = output(ctx)
    if data is None:
        numbers = _recorded(model)
        say.note("these were measured when the model was packaged; give --data FILE to measure on your own stories")
        say.json(numbers) if as_json else _show(numbers)
        return
    stories = read_all(data, "--data")
    loaded = load_model(say, model)
    from steer.evaluation.evaluate import evaluate as measure
    from steer.evaluation.judge import judge_folder

    if judge_folder() is None:
        say.note(
            "endings are left out, and texts are compared by the model's own encoder: judging needs "
            "pip install 'steer[judge]'"
        )
    with say.progress("evaluating") as bar:
        numbers = measure(loaded, stories, pairs=pairs, seed=seed, progress=bar.show)
    if as_json:
        say.json(numbers)
    else:
        _show(numbers)


def _recorded(model: str | None) -> dict[str, Any]:
    """The figures that came with a model."""
    from steer.models.checkpoint import fetch, packaged_model

    folder = fetch(model or str(packaged_model()))
    try:
        return json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} came without figures; give --data FILE with stories it has not seen") from error


def _show(numbers: Mapping[str, Any]) -> None:
    from rich.table import Column, Table

    from agents.cli._console import console, shown
    from steer.evaluation.sections import CAPTION, figure_sections

    table = Table(Column(no_wrap=True), Column(), box=None, pad_edge=False, show_header=False, caption=CAPTION)
    for section in figure_sections(numbers):
        if table.rows:
            table.add_row()
        table.add_row(shown(section.title, "bold"), shown(section.about, "dim"))
        for measure, value in section.rows:
            table.add_row(shown(f"  {measure}"), shown(value))
    console().print(table)
