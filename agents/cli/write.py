"""`steer write`: one text, or a batch of them, written towards terminals, at once or by a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli import _batch as batches
from agents.cli import _search_options as searching
from agents.cli import _search_output as searched
from agents.cli._models import load_model
from agents.cli._options import (
    ContextFileOption,
    ContextOption,
    JsonOption,
    Long,
    ModelOption,
    ScaleOption,
    SeedOption,
    TemperatureOption,
    TopPOption,
    read_context,
)
from agents.cli._output import Output, output


class Method(StrEnum):
    """How a terminal is mixed in."""

    UNGUIDED = "unguided"
    FIXED = "fixed"
    ANNEALED = "annealed"
    SEARCH = "search"
    GUIDED_SEARCH = "guided-search"

    @property
    def searches(self) -> bool:
        """Whether many candidates are written and the best is taken."""
        return self in (Method.SEARCH, Method.GUIDED_SEARCH)

    @property
    def needs_terminal(self) -> bool:
        """Whether nothing can be written without one."""
        return self not in (Method.UNGUIDED, Method.SEARCH)


class Schedule(StrEnum):
    """The schedules of `steer.latents.schedules`, named here so that `--help` needs no torch."""

    CONSTANT = "constant"
    LINEAR = "linear"
    LINEAR_BIGVAE = "linear_bigvae"
    COSINE = "cosine"
    BRIDGE = "bridge"


class Drafts(StrEnum):
    """How the model proposes what a terminal is mixed into; see `steer.heads.prior`."""

    WRITE = "write"
    HEAD = "head"


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
    drafts: Drafts

    def __post_init__(self) -> None:
        name = self.method.value
        if self.schedule is not None and self.method not in (Method.ANNEALED, Method.GUIDED_SEARCH):
            raise typer.BadParameter(f"--schedule belongs to --method annealed or guided-search; got --method {name}")
        if self.weight is not None and not self.method.needs_terminal:
            raise typer.BadParameter(f"--weight says how much of the terminal is mixed in; --method {name} mixes none")

    def pull_schedule(self) -> Any:
        """The `ScheduleConfig` of the pull: a constant weight, or a schedule that ends at `weight`."""
        from steer.latents.schedules import ScheduleConfig

        if self.method is Method.FIXED:
            return ScheduleConfig("constant", start=0.5 if self.weight is None else self.weight)
        name = self.schedule or Schedule.BRIDGE
        if name is Schedule.CONSTANT:
            return ScheduleConfig(name.value, start=self.weight)
        return ScheduleConfig(name.value, end=self.weight)

    def search(self, options: searching.SearchOptions) -> searching.Search | None:
        """The search that these settings ask for, None where they ask for none.

        Raises:
            typer.BadParameter: see `make_search`; or `options` came without a method that searches.
        """
        if not self.method.searches:
            if given := options.given():
                raise typer.BadParameter(
                    f"{given[0]} belongs to --method search or guided-search; got --method {self.method.value}"
                )
            return None
        return searching.make_search(
            options,
            guided=self.method is Method.GUIDED_SEARCH,
            spans=self.spans,
            scale=self.scale,
            temperature=self.temperature,
            top_p=self.top_p,
            long=self.long.value,
            schedule=self.pull_schedule(),
            drafts=self.drafts.value,
        )

    def write(self, model: Any, contexts: Sequence[str], terminals: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        """Write a batch of rows, as `write_guided` does. `terminals` may be empty where nothing guides."""
        from steer.latents.pull import Pull
        from steer.writing.guided import write_guided
        from steer.writing.limits import Limits
        from steer.writing.sampling import SamplingConfig

        pulls = []
        if self.method is not Method.UNGUIDED:
            latents = model.encode(list(terminals), long=self.long.value)
            pulls.append(Pull(latents, self.pull_schedule().weights(self.spans)))
        sampling = SamplingConfig(temperature=self.temperature, top_p=self.top_p)
        return write_guided(
            model,
            list(contexts),
            pulls=pulls,
            spans=self.spans,
            seeds=list(seeds),
            sampling=sampling,
            guidance_scale=self.scale,
            drafts=self.drafts.value,
            limits=Limits(plays=False),
        )


def write(
    ctx: typer.Context,
    context: ContextOption = None,
    context_file: ContextFileOption = None,
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
    scale: ScaleOption = 1.25,
    drafts: Annotated[
        Drafts, typer.Option("--drafts", help="Write a span as a draft, or ask the model's draft head.")
    ] = Drafts.WRITE,
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
        bool, typer.Option("--overwrite", help="With --batch: begin again instead of continuing --out; replace --tree.")
    ] = False,
    as_json: JsonOption = False,
    policy: searching.PolicyOption = None,
    policy_option: searching.PolicyOptionsOption = None,
    budget: searching.BudgetOption = None,
    budget_tokens: searching.TokensOption = None,
    budget_nodes: searching.NodesOption = None,
    budget_seconds: searching.SecondsOption = None,
    menu: searching.MenuOption = None,
    rewards: searching.RewardsOption = None,
    tree: searching.TreeOption = None,
    go_on: searching.GoOnOption = None,
) -> None:
    """Continue a text towards an ending that it never mentions.

    Prints what was written, without the context. With --batch a stopped command continues where it stopped. The two
    searches write many candidates and take the best; stopped by Ctrl-C, they print the best found so far.
    """
    say = output(ctx)
    # One long line must not stop a batch of hundreds; it is told, and --long error brings the strictness back.
    chosen = long or (Long.ERROR if batch is None else Long.MEAN)
    settings = Settings(method, schedule, weight, spans, scale, temperature, top_p, chosen, drafts)
    options = searching.SearchOptions(
        policy, policy_option, budget, budget_tokens, budget_nodes, budget_seconds, menu, rewards, tree, go_on
    )
    if batch is not None:
        if context is not None or context_file is not None or terminal is not None:
            raise typer.BadParameter("--batch brings its own contexts and terminals; leave out the other options")
        if out is None:
            raise typer.BadParameter("--batch needs --out FILE for what is written")
        if go_on is not None:
            raise typer.BadParameter("--go-on belongs to a single text; a batch that was stopped goes on by itself")
        _write_batch(say, settings, options, batch, out, seed, model, batch_size, overwrite, as_json)
        return
    if out is not None or (overwrite and tree is None):
        raise typer.BadParameter("--out and --overwrite belong to --batch; a single text is printed")
    if terminal is None and method.needs_terminal:
        raise typer.BadParameter(f"--method {method.value} needs --terminal TEXT (or choose --method unguided)")
    search = settings.search(options)
    visible = read_context(context, context_file)
    if search is not None:
        searched.write_one(say, search, visible, terminal, seed, model, tree, go_on, overwrite, as_json)
        return
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
    options: searching.SearchOptions,
    source: Path,
    target: Path,
    seed: int,
    model: str | None,
    batch_size: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    search = settings.search(options)
    pairs = batches.read_pairs(source, need_terminal=settings.method.needs_terminal)
    to_terminals = settings.method.needs_terminal or (search is not None and any(pair.terminal for pair in pairs))
    if to_terminals and not settings.method.needs_terminal:
        pairs = batches.read_pairs(source, need_terminal=True)  # where some lines have one, all must
    kept = {} if overwrite else batches.read_done(target, pairs)
    made = {"settings": batches.digest({"how": settings if search is None else search, "seed": seed})}
    batches.check_made(target, kept, made)
    if kept:
        say.note(f"{target}: {len(kept)} of {len(pairs)} lines are there and are kept (--overwrite begins again)")
    if options.tree is not None:
        searched.make_folder(options.tree, fresh=not kept, overwrite=overwrite)
    loaded = load_model(say, model) if len(kept) < len(pairs) else None
    if loaded is not None:
        from agents.simulation.manifest import model_identity

        made["model"] = batches.digest(model_identity(loaded))
        batches.check_made(target, kept, made)
    if to_terminals and loaded is not None:
        batches.check_terminals(loaded, pairs, settings.long.value)
        if long := batches.count_long(loaded, pairs):
            what = "averaged over their spans" if settings.long is Long.MEAN else "cut"
            say.note(f"{long} terminals are longer than a span of {loaded.span_tokens} tokens and are {what}")

    def write_rows(rows: Sequence[batches.Pair]) -> list[Any]:
        from steer.noise import derive_seed

        # A row's seed comes from its id: neither its place in the file nor a resumed command changes what it gets.
        seeds = [derive_seed(seed, row.id) for row in rows]
        return settings.write(loaded, [r.context for r in rows], [r.terminal for r in rows], seeds)

    with say.progress("writing", len(pairs)) as bar:
        if search is None:
            batches.write_missing(
                target, pairs, kept, write_rows, batch_size, bar.advance, overwrite=overwrite, made=made
            )
        else:
            rows = searched.SearchedRows(say, search, loaded, model, seed, options.tree, bar)
            batches.write_missing(
                target,
                pairs,
                kept,
                rows,
                batch_size,
                rows.pass_over,
                overwrite=overwrite,
                made=made,
                more=searched.line_fields,
            )
            rows.tell()
    if as_json:
        say.json({"out": target, "lines": len(pairs), "kept": len(kept), "written": len(pairs) - len(kept)})
    else:
        say.note(f"{len(pairs) - len(kept)} lines written to {target}")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    example = 'Example: steer write -c "Once upon a time there was a fox." -t "The fox and the hen were friends." -n 4'
    app.command(epilog=example)(write)
