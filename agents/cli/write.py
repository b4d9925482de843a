"""`steer write`: one text, or a batch of them, written towards terminals, at once or by a search."""

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from agents.cli._options import (
    ContextFileOption,
    ContextOption,
    JsonOption,
    ModelOption,
    SeedOption,
    read_context,
    unfold,
)
from agents.cli._output import output
from agents.cli._search_options import SearchOptions, make_search
from agents.cli._search_output import search_one
from agents.cli._write_batch import BatchOptions, write_batch
from agents.cli._write_options import Job, WriteOptions

EXAMPLE = 'steer write -c "Once upon a time there was a fox." -t "The fox and the hen were friends." -n 4'


@dataclass(frozen=True)
class TextOptions:
    """A single text: what it goes on from and where it leads."""

    context: ContextOption = None
    context_file: ContextFileOption = None
    terminal: Annotated[str | None, typer.Option("--terminal", "-t", help="The ending to write towards.")] = None


@unfold
def write(
    ctx: typer.Context,
    text: TextOptions,
    batch: BatchOptions,
    how: WriteOptions,
    search: SearchOptions,
    seed: SeedOption = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a text towards an ending that it never mentions.

    Prints what was written, without the context. With --batch a stopped command continues where it stopped. The two
    searches write many candidates and take the best; stopped by Ctrl-C, they print the best found so far.
    """
    say = output(ctx)
    if batch.batch is not None:
        _check_batch(text, batch, search)
        # One long line must not stop a batch of hundreds; it is told, and --long error brings the strictness back.
        how = replace(how, long=how.long or "mean")
        write_batch(Job(say, how, search, seed, model, as_json), batch, batch.batch)
        return
    if batch.out is not None or (batch.overwrite and search.tree is None):
        raise typer.BadParameter("--out and --overwrite belong to --batch; a single text is printed")
    if text.terminal is None and how.guided:
        raise typer.BadParameter(f"--method {how.method} needs --terminal TEXT (or choose --method unguided)")
    job = Job(say, how, search, seed, model, as_json)
    found = make_search(search, how)
    visible = read_context(text.context, text.context_file)
    if found is not None:
        search_one(job, found, visible, text.terminal, overwrite=batch.overwrite)
        return
    loaded = job.load_model()
    with say.status("writing"):
        written = how.write(loaded, [visible], [] if text.terminal is None else [text.terminal], [seed])[0]
    if not as_json:
        say.result(written.text)
        return
    answer = {"context": visible, "terminal": text.terminal, "text": written.text, "spans": written.spans}
    say.json({**answer, "ended": written.ended, "method": how.method, "seed": seed})


def _check_batch(text: TextOptions, batch: BatchOptions, search: SearchOptions) -> None:
    if text != TextOptions():
        raise typer.BadParameter("--batch brings its own contexts and terminals; leave out the other options")
    if batch.out is None:
        raise typer.BadParameter("--batch needs --out FILE for what is written")
    if search.go_on is not None:
        raise typer.BadParameter("--go-on belongs to a single text; a batch that was stopped goes on by itself")
