"""`steer write`: one text, or a batch of them, written towards terminals."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli import batch as batches
from agents.cli.models import JsonOption, ModelOption, SeedOption, load_model, read_context
from agents.cli.output import Output, output


class Method(StrEnum):
    """How a terminal is mixed in."""

    UNGUIDED = "unguided"
    FIXED = "fixed"
    ANNEALED = "annealed"


class Schedule(StrEnum):
    """The schedules of `steer.schedules`, named here so that `--help` needs no torch."""

    CONSTANT = "constant"
    LINEAR = "linear"
    LINEAR_BIGVAE = "linear_bigvae"
    COSINE = "cosine"
    BRIDGE = "bridge"


class Long(StrEnum):
    """What to do with a text longer than a span; see `LatentModel.encode`."""

    ERROR = "error"
    MEAN = "mean"
    TRUNCATE = "truncate"


LongOption = Annotated[Long, typer.Option("--long", help="What to do with a text longer than one span.")]
ScaleOption = Annotated[float, typer.Option("--scale", help="Classifier-free guidance; 1 does without.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0, help="0 is greedy.")]
TopPOption = Annotated[float, typer.Option("--top-p", help="Keep the likeliest tokens of this total probability.")]


@dataclass(frozen=True)
class Settings:
    """Everything about writing but the texts."""

    method: Method
    schedule: Schedule | None
    weight: float | None
    spans: int
    scale: float
    temperature: float
    top_p: float
    long: Long

    def __post_init__(self) -> None:
        if self.schedule is not None and self.method is not Method.ANNEALED:
            raise typer.BadParameter(f"--schedule belongs to --method annealed; got --method {self.method.value}")
        if self.weight is not None and self.method is Method.UNGUIDED:
            raise typer.BadParameter("--weight says how much of the terminal is mixed in; --method unguided mixes none")

    def pull(self, terminals: Any) -> Any:
        """The pull towards terminals `[B, z]`: a constant weight, or a schedule that ends at `weight`."""
        from steer.guidance import Pull
        from steer.schedules import make_schedule

        if self.method is Method.FIXED:
            weights = make_schedule("constant", self.spans, start=0.5 if self.weight is None else self.weight)
        else:
            name = self.schedule or Schedule.BRIDGE
            option = "start" if name is Schedule.CONSTANT else "end"
            weights = make_schedule(name.value, self.spans, **({} if self.weight is None else {option: self.weight}))
        return Pull(terminals, weights)

    def write(self, model: Any, contexts: Sequence[str], terminals: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        """Write a batch of rows; a list of `steer.guided.Written`. `terminals` may be empty where nothing guides."""
        from steer.guided import write_guided
        from steer.sampling import SamplingConfig

        guided = self.method is not Method.UNGUIDED
        pulls = [self.pull(model.encode(list(terminals), long=self.long.value))] if guided else []
        sampling = SamplingConfig(temperature=self.temperature, top_p=self.top_p)
        return write_guided(
            model, list(contexts), pulls=pulls, spans=self.spans, seeds=list(seeds), sampling=sampling, scale=self.scale
        )


def write(
    ctx: typer.Context,
    context: Annotated[str | None, typer.Option("--context", "-c", help="The visible text to continue.")] = None,
    context_file: Annotated[
        Path | None, typer.Option("--context-file", help="Read it from a UTF-8 file; - is standard input.")
    ] = None,
    terminal: Annotated[str | None, typer.Option("--terminal", "-t", help="The ending to write towards.")] = None,
    batch: Annotated[
        Path | None, typer.Option("--batch", help="JSON lines with id, context and terminal; needs --out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="With --batch: the same lines with text and spans.")
    ] = None,
    spans: Annotated[int, typer.Option("--spans", "-n", min=1, help="Spans to write.")] = 6,
    method: Annotated[Method, typer.Option("--method", help="How the terminal is mixed in.")] = Method.ANNEALED,
    schedule: Annotated[
        Schedule | None, typer.Option("--schedule", help="Of annealed guidance; bridge if not given.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option("--weight", min=0, max=1, help="Constant weight (fixed, 0.5), or the last one.")
    ] = None,
    scale: ScaleOption = 1.5,
    temperature: TemperatureOption = 0.7,
    top_p: TopPOption = 0.95,
    long: Annotated[
        Long | None,
        typer.Option("--long", help="A text longer than a span; by default an error, with --batch its mean."),
    ] = None,
    seed: SeedOption = 0,
    model: ModelOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows written at once.")] = 16,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --batch: begin again instead of continuing --out.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Continue a text towards an ending that it never mentions.

    Prints what was written, without the context. With --batch a stopped command continues where it stopped.
    """
    say = output(ctx)
    # One long line must not stop a batch of hundreds; it is told, and --long error brings the strictness back.
    chosen = long or (Long.ERROR if batch is None else Long.MEAN)
    settings = Settings(method, schedule, weight, spans, scale, temperature, top_p, chosen)
    if batch is not None:
        if context is not None or context_file is not None or terminal is not None:
            raise typer.BadParameter("--batch brings its own contexts and terminals; leave out the other options")
        if out is None:
            raise typer.BadParameter("--batch needs --out FILE for what is written")
        _write_batch(say, settings, batch, out, seed, model, batch_size, overwrite, as_json)
        return
    if out is not None or overwrite:
        raise typer.BadParameter("--out and --overwrite belong to --batch; a single text is printed")
    if terminal is None and method is not Method.UNGUIDED:
        raise typer.BadParameter(f"--method {method.value} needs --terminal TEXT (or choose --method unguided)")
    visible = read_context(context, context_file)
    loaded = load_model(say, model)
    with say.status("writing"):
        written = settings.write(loaded, [visible], [] if terminal is None else [terminal], [seed])[0]
    if not as_json:
        say.result(written.text)
        return
    answer = {"context": visible, "terminal": terminal, "text": written.text, "spans": written.spans}
    say.json({**answer, "ended": written.ended, "method": method.value, "seed": seed})


def _write_batch(
    say: Output,
    settings: Settings,
    source: Path,
    target: Path,
    seed: int,
    model: str | None,
    batch_size: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    guided = settings.method is not Method.UNGUIDED
    pairs = batches.read_pairs(source, need_terminal=guided)
    kept = {} if overwrite else batches.read_done(target, pairs)
    if kept:
        say.note(f"{target}: {len(kept)} of {len(pairs)} lines are there and are kept (--overwrite begins again)")
    loaded = load_model(say, model) if len(kept) < len(pairs) else None
    if guided and loaded is not None:
        batches.check_terminals(loaded, pairs, settings.long.value)
        if long := batches.count_long(loaded, pairs):
            what = "averaged over their spans" if settings.long is Long.MEAN else "cut"
            say.note(f"{long} terminals are longer than a span of {loaded.span_tokens} tokens and are {what}")

    def write_rows(rows: Sequence[batches.Pair]) -> list[Any]:
        from steer.sampling import derive_seed

        # A row's seed comes from its id: neither its place in the file nor a resumed command changes what it gets.
        seeds = [derive_seed(seed, row.id) for row in rows]
        return settings.write(loaded, [r.context for r in rows], [r.terminal for r in rows], seeds)

    with say.progress("writing", len(pairs)) as bar:
        batches.write_missing(target, pairs, kept, write_rows, batch_size, bar.advance, overwrite=overwrite)
    if as_json:
        say.json({"out": target, "lines": len(pairs), "kept": len(kept), "written": len(pairs) - len(kept)})
    else:
        say.note(f"{len(pairs) - len(kept)} lines written to {target}")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    example = 'Example: steer write -c "Once upon a time there was a fox." -t "The fox and the hen were friends." -n 4'
    app.command(epilog=example)(write)
