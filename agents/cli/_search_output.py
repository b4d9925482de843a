"""What `steer write` makes of searched texts: printed, put into lines, saved as trees, and told about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import typer

from agents.cli._batch import Pair
from agents.cli._errors import ExitCode, report
from agents.cli._options import refuse_existing
from agents.cli._output import Progress
from agents.cli._search_options import Search
from agents.cli._write_options import Job
from agents.errors import InputError

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel
    from steer.search.searched import SearchResult
    from steer.search.tree import Tree

TREES = "lines-*.safetensors"
_WHY = {
    "short": ("its budget was too small to plan for more", "a larger budget"),
    "out_of_tokens": ("its tokens are spent", "a larger --budget or --budget-tokens"),
    "out_of_nodes": ("its spans are spent", "more --budget-nodes"),
    "out_of_time": ("its time is over", "more --budget-seconds"),
}


def search_one(job: Job, search: Search, context: str, terminal: str | None, *, overwrite: bool) -> None:
    """Search for one text and print it. After Ctrl-C that is the best found so far, and the exit code is 130.

    Raises:
        InputError: the tree's file exists, or the tree to go on with was made with other arguments, or not even one
            span was found.
        KeyboardInterrupt: nothing was found before Ctrl-C.
        SteerError: something does not fit the model.
    """
    say, tree, go_on = job.say, job.options.tree, job.options.go_on
    if tree is not None:
        # What goes on with a tree only adds to it.
        refuse_existing(tree, overwrite=overwrite or (go_on is not None and _same(tree, go_on)), option="--tree")
    loaded = job.load_model()
    terminals = [] if terminal is None else [terminal]
    start = None if go_on is None else _load(go_on, _made_with(search, loaded, terminals, [job.seed]))
    with say.progress("tokens") as bar:
        result = search.run(loaded, [context], terminals, [job.seed], partial(bar.show, "tokens"), start)[0]
    if tree is not None:
        record = _made_with(search, loaded, terminals, [job.seed])
        _save(job, search, loaded, tree, [result], record)
        say.note(f"{result.tree.size - 1} spans saved to {tree}")
    if not result.ids:
        if result.status == "interrupted":
            raise KeyboardInterrupt
        why, advice = _WHY[result.status]
        raise InputError(f"not one span was written: {why}; a span has {loaded.span_tokens} tokens: try {advice}")
    if job.as_json:
        answer = {"context": context, "terminal": terminal, "text": result.text, "spans": result.spans}
        answer |= {"ended": result.ended, "method": search.how.method, "seed": job.seed, "policy": search.policy}
        say.json({**answer, **_metrics(result), "tree": tree})
    else:
        say.result(result.text)
    _tell_end(job, result)


def _tell_end(job: Job, result: "SearchResult") -> None:
    """Say where a text is not whole, or where it is only the best that was found before Ctrl-C."""
    found = f"{len(result.spans)} of {job.how.spans} spans"
    if result.status == "interrupted":
        what = "the best text so far" if result.finished else f"the best so far, unfinished: {found}"
        report(KeyboardInterrupt(), f"interrupted: this is {what}", debug=False)
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not result.finished:
        why, advice = _WHY[result.status]
        job.say.note(f"unfinished ({result.status}): {found}, {why}; try {advice}, or fewer --spans")


@final
class SearchedRows:
    """Writes the groups of a batch, each group's rows side by side.

    Args:
        job: how, and with which seed; its tree is a folder here.
        search: what to do.
        show: is told the tokens of a group.

    Attributes:
        unfinished: how many rows have fewer spans than asked for.
    """

    def __init__(self, job: Job, search: Search, model: "LatentModel", show: Progress) -> None:
        self.job, self.search, self.model, self.show = job, search, model, show
        self.unfinished = 0

    def __call__(self, rows: Sequence[Pair]) -> list[dict[str, Any]]:
        """Search for a group; see `write_missing`.

        Raises:
            KeyboardInterrupt: Ctrl-C. What was found by then is dropped: the same command searches the group again.
        """
        from steer.noise import derive_seed

        seeds = [derive_seed(self.job.seed, row.id) for row in rows]
        terminals = [row.terminal for row in rows if row.terminal]
        show = partial(self.show, f"tokens (lines {rows[0].number} to {rows[-1].number})")
        results = self.search.run(self.model, [row.context for row in rows], terminals, seeds, show)
        if any(result.status == "interrupted" for result in results):
            raise KeyboardInterrupt
        if (folder := self.job.options.tree) is not None:
            path = folder / TREES.replace("*", f"{rows[0].number:06d}")
            record = {**_made_with(self.search, self.model, terminals, seeds), "ids": [row.id for row in rows]}
            _save(self.job, self.search, self.model, path, results, record)
        self.unfinished += sum(not result.finished for result in results)
        return [_line_fields(result) for result in results]

    def tell(self) -> None:
        """Say how many rows are unfinished, and what to try."""
        if self.unfinished:
            self.job.say.note(
                f"{self.unfinished} texts are unfinished, see `search.status` in their lines; try a larger budget or "
                "fewer --spans, with --overwrite"
            )


def _line_fields(result: "SearchResult") -> dict[str, Any]:
    """What a line of a batch says: no seconds, so that the same search gives the same line."""
    metrics = _metrics(result)
    del metrics["spent"]["seconds"]
    return {"text": result.text, "spans": list(result.spans), "search": metrics}


def make_folder(folder: Path, *, fresh: bool, overwrite: bool) -> None:
    """Prepare the folder for the trees of a batch.

    Args:
        folder: where.
        fresh: whether the batch begins, rather than goes on.
        overwrite: take away the trees that are there.

    Raises:
        InputError: it is a file, or holds trees of another batch.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--tree {folder} is a file; with --batch it names a folder, for a tree per group of lines")
    old = sorted(folder.glob(TREES))
    if old and fresh and not overwrite:
        raise InputError(f"--tree {folder} holds trees already; choose another folder, or pass --overwrite")
    for path in old if overwrite else ():
        path.unlink()


def _metrics(result: "SearchResult") -> dict[str, Any]:
    names = ("value", "components", "status", "finished")
    return {**{name: getattr(result, name) for name in names}, "spent": asdict(result.spent)}


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _made_with(search: Search, model: "LatentModel", terminals: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """All that decides which spans a tree may hold; the contexts are in the tree itself."""
    from agents.simulation.manifest import model_identity

    how, config = search.how, search.how.config()
    return {
        "method": how.method,
        "spans": how.spans,
        "terminals": list(terminals),
        "long": how.how_long,
        "seeds": list(seeds),
        "menu": [asdict(action) for action in search.menu],
        "schedule": asdict(config.schedule) if how.guided else None,
        "sampling": asdict(config.sampling),
        "rewards": search.chosen_rewards(model, bool(terminals)).model_dump(mode="json"),
        "identity": model_identity(model),
    }


def _save(
    job: Job,
    search: Search,
    model: "LatentModel",
    path: Path,
    results: "Sequence[SearchResult]",
    made: Mapping[str, Any],
) -> None:
    from steer.search.tree_file import save_tree

    name = job.model
    record = {
        "model": str(Path(name).resolve()) if name and Path(name).is_dir() else name or model.latent_config.name,
        "policy": search.policy,
        "policy_options": dict(search.policy_options),
        "budget": asdict(search.budget(model)),
        **made,
        "status": [result.status for result in results],
        "finished": [result.finished for result in results],
        "chosen": [result.node for result in results],
    }
    save_tree(results[0].tree, path, record)


def _load(path: Path, made: Mapping[str, Any]) -> "Tree":
    """The tree to go on with.

    Raises:
        InputError: it was made with something else than `made`.
    """
    from steer.search.tree_file import load_tree

    tree, record = load_tree(path)
    for name, now in json.loads(json.dumps(made)).items():
        if name not in record:
            raise InputError(f"--go-on {path} does not say what it was made with; expected a file that --tree saved")
        if record[name] != now:
            what = "another model" if name == "identity" else f"{name} {_brief(record[name])}, not {_brief(now)}"
            raise InputError(
                f"--go-on {path} was made with {what}; give what it was made with, only policy and budget may differ"
            )
    return tree


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
