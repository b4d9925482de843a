"""`steer write --batch`: the rows of a file, written at once or by searches, into another one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli import _batch as batches
from agents.cli._batch import Pair
from agents.cli._search_options import Search, make_search
from agents.cli._search_output import SearchedRows, make_folder
from agents.cli._write_options import Job

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel


@dataclass(frozen=True)
class BatchOptions:
    """The options of a batch."""

    batch: Annotated[
        Path | None, typer.Option("--batch", help="JSON lines with id, context and terminal; needs --out.")
    ] = None
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="With --batch: the same lines with text and spans.")
    ] = None
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows written at once.")] = 16
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --batch: begin again instead of continuing --out; replace --tree.")
    ] = False


def write_batch(job: Job, options: BatchOptions, source: Path) -> None:
    """Write the rows of `source` that are not there yet, and say how many there are.

    Raises:
        InputError: a line, or the file to go on with, that cannot be used.
        SteerError: something does not fit the model.
    """
    assert options.out is not None
    search, target = make_search(job.options, job.how), options.out
    pairs, to_terminals = _read(job, search, source)
    done = {} if options.overwrite else batches.read_done(target, pairs)
    made = {"settings": batches.digest({"how": search or job.how, "seed": job.seed})}
    batch = batches.Batch(target, pairs, done, made, options.batch_size, options.overwrite)
    batches.check_made(batch)
    if done:
        job.say.note(f"{target}: {len(done)} of {len(pairs)} lines are there and are kept (--overwrite begins again)")
    if job.options.tree is not None:
        make_folder(job.options.tree, fresh=not done, overwrite=options.overwrite)
    left = len(pairs) - len(done)
    if left:
        _write(job, search, batch, to_terminals=to_terminals)
    else:  # only what was cut short is to be taken off, and lines may be in another order
        batches.write_missing(batch, lambda rows: [], lambda what, done, total: None)
    if job.as_json:
        job.say.json({"out": target, "lines": len(pairs), "kept": len(done), "written": left})
    else:
        job.say.note(f"{left} lines written to {target}")


def _read(job: Job, search: Search | None, source: Path) -> tuple[list[Pair], bool]:
    """The rows, and whether they are written towards terminals."""
    needed = job.how.guided
    pairs = batches.read_pairs(source, need_terminal=needed)
    if not needed and search is not None and any(pair.terminal for pair in pairs):
        return batches.read_pairs(source, need_terminal=True), True  # where some lines have one, all must
    return pairs, needed


def _write(job: Job, search: Search | None, batch: batches.Batch, *, to_terminals: bool) -> None:
    from agents.simulation.manifest import model_identity

    model = job.load_model()
    batch = replace(batch, made={**batch.made, "model": batches.digest(model_identity(model))})
    batches.check_made(batch)
    if to_terminals:
        batches.check_terminals(model, batch.pairs, job.how.how_long)
        if long := batches.count_long(model, batch.pairs):
            what = "averaged over their spans" if job.how.how_long == "mean" else "cut"
            job.say.note(f"{long} terminals are longer than a span of {model.span_tokens} tokens and are {what}")
    with job.say.progress("lines", len(batch.pairs)) as bar:
        if search is None:
            batches.write_missing(batch, lambda rows: _write_rows(job, model, rows), bar.show)
        else:
            rows = SearchedRows(job, search, model, bar.show)
            # The bar shows the tokens of a group, which say more than lines.
            batches.write_missing(batch, rows, lambda what, done, total: None)
            rows.tell()


def _write_rows(job: Job, model: "LatentModel", rows: Sequence[Pair]) -> list[dict[str, Any]]:
    from steer.noise import derive_seed

    # A row's seed comes from its id: neither its place in the file nor a resumed command changes what it gets.
    seeds = [derive_seed(job.seed, row.id) for row in rows]
    written = job.how.write(model, [row.context for row in rows], [row.terminal for row in rows], seeds)
    return [{"text": each.text, "spans": each.spans} for each in written]
