"""`steer index`: one's own documents, found by meaning; and plans made of what they tell."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agents.cli._errors import ExitCode
from agents.cli._models import load_model
from agents.cli._options import JsonOption, ModelOption, OverwriteOption, refuse_existing
from agents.cli._output import output
from agents.errors import InputError

CutAt = Literal["sentences", "tokens"]  # where documents are cut into passages
Kind = Literal["auto", "flat", "hnsw", "ivfpq"]  # of index
Dtype = Literal["float32", "bfloat16", "float16"]

StoreOption = Annotated[Path, typer.Option("--store", "-s", help="Folder of the index.")]
KindOption = Annotated[Kind, typer.Option("--kind", help="Of the index; auto chooses by the number of passages.")]
KOption = Annotated[int, typer.Option("--top", "-k", min=1, help="How many to show.")]
SOURCES = 12  # of an index that are named


def build(
    ctx: typer.Context,
    corpus: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS...", help="Text files (.txt, .md, .jsonl, also .gz), or folders of them."),
    ],
    store: StoreOption,
    cut: Annotated[CutAt, typer.Option("--cut", help="Make passages of whole sentences, or of a span each.")] = (
        "sentences"
    ),
    batch: Annotated[int, typer.Option("--batch", min=1, help="Documents that are encoded and stored together.")] = 64,
    dtype: Annotated[
        Dtype | None, typer.Option("--dtype", help="Of the encoder; bfloat16 is the fastest on many machines.")
    ] = None,
    kind: KindOption = "auto",
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode the passages of documents into an index; stopped at any moment, the same command goes on.

    Documents that are in the index already are left as they are, so more can be added at any time. At the end the
    index is built anew, or extended, as the kind that suits its size.
    """
    say = output(ctx)
    loaded = load_model(say, model, dtype=dtype)

    from agents.index.build import BuildReport, build_index, open_index
    from agents.index.passages import Cutter, read_documents

    with open_index(store, loaded, create=True) as opened:
        with say.progress("passages") as bar:
            try:
                report = build_index(
                    loaded,
                    opened,
                    read_documents(corpus),
                    Cutter(loaded, cut),
                    batch=batch,
                    on_batch=lambda so_far: bar.show("passages", so_far.spans, None),
                )
            except KeyboardInterrupt:
                say.note(f"stopped; {len(opened):,} passages are safe, the same command goes on")
                raise
        assert isinstance(report, BuildReport)
        total = len(opened)
        with say.status(f"building the index of {total:,} passages"):
            opened.optimize(kind)
    if as_json:
        say.json({"store": store, "total": total, "report": report})
        return
    say.result(
        f"{report.documents:,} documents read, {report.known:,} of them known before: "
        f"{report.spans:,} passages added, {total:,} in {store}"
    )
    if report.empty:
        say.note(f"{report.empty:,} documents have no tokens and were left out")


def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for; at most one span, more is averaged.")],
    store: StoreOption,
    top: KOption = 5,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Only passages of this file; may be repeated.")
    ] = None,
    diversity: Annotated[
        float, typer.Option("--diversity", min=0, max=1, help="Prefer passages unlike those found before (MMR).")
    ] = 0.0,
    around: Annotated[int, typer.Option("--around", min=0, help="Passages to show before and after each.")] = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the passages that are nearest in meaning to a text."""
    say = output(ctx)
    loaded = load_model(say, model)

    from agents.index.build import SPAN, open_index, surroundings

    query = loaded.encode(text, long="mean")[0].numpy()
    with open_index(store, loaded) as opened:
        owner = tuple(source) if source else None
        hits = opened.search(query, top, kind=SPAN, owner=owner, diversity=diversity)
        shown = [surroundings(opened, hit.record, around) for hit in hits]
    if as_json:
        rows = [
            {
                "score": hit.score,
                "id": hit.record.id,
                "source": hit.record.owner,
                "text": hit.record.text,
                **hit.record.extra,
                **({"before": before, "after": after} if around else {}),
            }
            for hit, (before, after) in zip(hits, shown, strict=True)
        ]
        say.json({"text": text, "hits": rows})
        return
    if not hits:
        say.note("nothing was found; `steer index stats` tells what the index holds")
    _show_hits(hits, shown)


def plan(
    ctx: typer.Context,
    context: Annotated[str, typer.Option("--context", "-c", help="The story so far; its last span counts.")],
    terminal: Annotated[str, typer.Option("--terminal", "-t", help="Where it is to end.")],
    store: StoreOption,
    spans: Annotated[int, typer.Option("--spans", min=2, help="Spans until then.")] = 6,
    count: Annotated[int, typer.Option("--count", min=1, help="Waypoints at most.")] = 3,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan a way from a story to an ending, through passages of other stories."""
    say = output(ctx)
    loaded = load_model(say, model)
    state_ids = loaded.to_ids(context)[-loaded.span_tokens :]
    if not state_ids:
        raise InputError("the context is empty; a plan starts from what has been told")

    from agents.index.build import open_index
    from agents.index.roadmap import Roadmap

    state = loaded.encode_ids([state_ids])[0].numpy()
    goal = loaded.encode(terminal)[0].numpy()
    with open_index(store, loaded) as opened:
        route = Roadmap(opened, getattr(loaded, "reach", None)).plan(state, goal, spans=spans, count=count)
    if as_json:
        say.json(
            {
                "context": context,
                "terminal": terminal,
                "spans": spans,
                "waypoints": route.waypoints,
                "cost": route.cost,
                "direct": route.direct,
                "graph": {"passages": route.passages, "edges": route.edges},
            }
        )
        return
    say.result(f"   {loaded.to_text(state_ids).strip()}")
    for number, waypoint in enumerate(route.waypoints, 1):
        say.result(
            f"{number}. {waypoint.text}  [{waypoint.source}; {waypoint.chance:.0%} soon after what is before it]"
        )
    say.result(f"=> {terminal}")
    say.note(f"without a plan it comes within {spans} spans with probability {route.direct:.0%}")


def stats(ctx: typer.Context, store: StoreOption, as_json: JsonOption = False) -> None:
    """Tell what an index holds: passages by source, kind and size of the index."""
    say = output(ctx)
    from vectorstore import VectorStore

    with VectorStore.open(store, readonly=True) as opened:
        found = opened.stats()
    if as_json:
        say.json(found)
        return
    say.table(_facts(found), show_header=False)


def verify(ctx: typer.Context, store: StoreOption) -> None:
    """Check every record, and that the index agrees with them; exit code 3 if something is wrong."""
    say = output(ctx)
    from vectorstore import VectorStore

    with say.status("reading every record"), VectorStore.open(store, readonly=True) as opened:
        problems = opened.verify()
        count = 0 if problems else len(opened)
    if problems:
        say.result("\n".join(problems))
        say.note(f"mend it with: steer index repair --store {store}")
        raise typer.Exit(ExitCode.CHECK_FAILED)
    say.result(f"{count:,} records and their index are whole")


def repair(ctx: typer.Context, store: StoreOption) -> None:
    """Rebuild a damaged index; where records are damaged, save those that can be read."""
    say = output(ctx)
    from vectorstore import VectorStore

    with say.status("repairing"):
        report = VectorStore.repair(store)
    say.result(str(report))


def optimize(
    ctx: typer.Context,
    store: StoreOption,
    kind: KindOption = "auto",
    ef_search: Annotated[
        int | None,
        typer.Option("--ef-search", min=1, help="Of an hnsw index: candidates kept in a search; more finds more."),
    ] = None,
) -> None:
    """Rebuild the index as the kind that suits its size, and give back the space of what was deleted."""
    say = output(ctx)
    from vectorstore import VectorStore

    with VectorStore.open(store) as opened, say.status("building the index"):
        opened.compact()
        opened.optimize(kind)
        if ef_search is not None:
            config = opened.stats().index
            if config.kind != "hnsw":
                raise InputError(f"--ef-search is for an hnsw index, and this one is {config.kind}; add --kind hnsw")
            opened.optimize(dataclasses.replace(config, ef_search=ef_search))
        found = opened.stats()
    say.result(f"{found.index.kind} index of {found.built:,} vectors, {found.bytes_per_vector:,.0f} bytes per vector")


def export(
    ctx: typer.Context,
    store: StoreOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    overwrite: OverwriteOption = False,
) -> None:
    """Write records and vectors to a Parquet file."""
    say = output(ctx)
    refuse_existing(out, overwrite=overwrite)
    from vectorstore import VectorStore

    with VectorStore.open(store, readonly=True) as opened, say.status("writing"):
        opened.export_parquet(out)
        count = len(opened)
    say.result(f"{count:,} records written to {out}")


def _show_hits(hits: Any, shown: Any) -> None:
    from rich.text import Text

    from agents.cli._console import console

    screen = console()
    for hit, (before, after) in zip(hits, shown, strict=True):
        record = hit.record
        head = Text(f"{hit.score:.2f}  ", style="cyan")
        place = f"{record.owner}, passage {record.extra['position'] + 1} of {record.extra['spans']}"
        screen.print(head + Text(place, style="dim"))
        body = Text()
        for part, style in ((before, "dim"), ([record.text], "bold" if before or after else ""), (after, "dim")):
            for text in part:
                body.append(" ".join(text.split()) + " ", style=style)
        screen.print(body)


def _facts(found: Any) -> list[tuple[str, str]]:
    """Figures of a store (`vectorstore.StoreStats`) for people."""
    sources = sorted(found.owners.items(), key=lambda item: -item[1])
    shown = [f"{count:,} {name or '(no source)'}" for name, count in sources[:SOURCES]]
    if len(sources) > SOURCES:
        shown.append(f"and {len(sources) - SOURCES} more")
    later = f", {found.later:,} since are compared one by one" if found.later else ""
    return [
        ("records", f"{found.records:,}"),
        ("sources", "\n".join(shown) or "-"),
        ("index", f"{found.index.kind} of {found.built:,} vectors{later}"),
        ("deleted", f"{found.tombstones:,} still in the index"),
        ("index in memory", f"{found.index_memory / 2**20:,.1f} MiB"),
        ("records on the disk", f"{found.database_bytes / 2**20:,.1f} MiB"),
        ("index on the disk", f"{found.index_bytes / 2**20:,.1f} MiB"),
        ("bytes per vector", f"{found.bytes_per_vector:,.0f}"),
    ]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module, as a group of their own."""
    group = typer.Typer(help="Index documents by meaning, search them, and plan with them.", no_args_is_help=True)
    group.command(epilog="Example: steer index build my-notes/ stories.txt --store indexes/mine")(build)
    group.command(epilog='Example: steer index search "She is lost in the woods." --store indexes/mine')(search)
    group.command(epilog='Example: steer index plan -c "A fox was hungry." -t "The fox slept." --store indexes/mine')(
        plan
    )
    group.command(epilog="Example: steer index stats --store indexes/mine")(stats)
    group.command(epilog="Example: steer index verify --store indexes/mine")(verify)
    group.command(epilog="Example: steer index repair --store indexes/mine")(repair)
    group.command(epilog="Example: steer index optimize --store indexes/mine --kind hnsw")(optimize)
    group.command(epilog="Example: steer index export --store indexes/mine --out mine.parquet")(export)
    app.add_typer(group, name="index")
