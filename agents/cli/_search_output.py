"""What `steer write` makes of searched texts: printed, put into lines, saved as trees, and told about."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import typer

from agents.cli._batch import Pair
from agents.cli._errors import ExitCode, report
from agents.cli._models import load_model
from agents.cli._options import refuse_existing
from agents.cli._output import Bar, Output
from agents.cli._search_options import Search
from agents.errors import InputError

TREES = "lines-*.safetensors"
_WHY = {
    "short": ("its budget was too small to plan for more", "a larger budget"),
    "out_of_tokens": ("its tokens are spent", "a larger --budget or --budget-tokens"),
    "out_of_nodes": ("its spans are spent", "more --budget-nodes"),
    "out_of_time": ("its time is over", "more --budget-seconds"),
}


def write_one(
    say: Output,
    search: Search,
    context: str,
    terminal: str | None,
    seed: int,
    model: str | None,
    tree: Path | None,
    go_on: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Search for one text and print it. After Ctrl-C that is the best found so far, and the exit code is 130.

    Raises:
        InputError: `tree` exists, or `go_on` was made with other arguments, or not even one span was found.
        KeyboardInterrupt: nothing was found before Ctrl-C.
        SteerError: something does not fit the model.
    """
    if tree is not None:
        # What goes on with a tree only adds to it.
        refuse_existing(tree, overwrite=overwrite or (go_on is not None and _same(tree, go_on)), option="--tree")
    loaded = load_model(say, model)
    terminals = [] if terminal is None else [terminal]
    start = None if go_on is None else _load(search, go_on, loaded, terminals, [seed])
    with say.progress("tokens", None) as bar:
        result = search.run(loaded, [context], terminals, [seed], _moves(bar, "tokens"), start)[0]
    interrupted = result.status == "interrupted"
    if tree is not None:
        _save(search, tree, loaded, model, terminals, [seed], [result])
        say.note(f"{result.tree.size - 1} spans saved to {tree}")
    if not result.ids:
        if interrupted:
            raise KeyboardInterrupt
        why, advice = _WHY[result.status]
        raise InputError(f"not one span was written: {why}; a span has {loaded.span_tokens} tokens: try {advice}")
    if as_json:
        answer = {"context": context, "terminal": terminal, "text": result.text, "spans": result.spans}
        answer |= {"ended": result.ended, "method": search.method, "seed": seed, "policy": search.policy}
        say.json({**answer, **_figures(result), "tree": tree})
    else:
        say.result(result.text)
    found = f"{len(result.spans)} of {search.spans} spans"
    if interrupted:
        what = "the best text so far" if result.finished else f"the best so far, unfinished: {found}"
        report(KeyboardInterrupt(), f"interrupted: this is {what}", debug=False)
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not result.finished:
        why, advice = _WHY[result.status]
        say.note(f"unfinished ({result.status}): {found}, {why}; try {advice}, or fewer --spans")


@final
class SearchedRows:
    """Writes the groups of a batch, each group's rows side by side.

    Args:
        say: for notes.
        search: what to do.
        model: a `LatentModel`.
        name: of the model, as the command has it.
        seed: of the command; each row's is derived from it and the row's id.
        folder: for the trees, or None.
        bar: shows the tokens of a group.

    Attributes:
        unfinished: how many rows have fewer spans than asked for.
    """

    def __init__(
        self, say: Output, search: Search, model: Any, name: str | None, seed: int, folder: Path | None, bar: Bar
    ) -> None:
        self.say, self.search, self.model, self.name = say, search, model, name
        self.seed, self.folder, self.bar = seed, folder, bar
        self.unfinished = 0

    def __call__(self, rows: Sequence[Pair]) -> list[Any]:
        """Search for a group.

        Raises:
            KeyboardInterrupt: Ctrl-C. What was found by then is dropped: the same command searches the group again.
        """
        from steer.noise import derive_seed

        seeds = [derive_seed(self.seed, row.id) for row in rows]
        terminals = [row.terminal for row in rows if row.terminal]
        what = f"tokens (lines {rows[0].number} to {rows[-1].number})"
        results = self.search.run(self.model, [row.context for row in rows], terminals, seeds, _moves(self.bar, what))
        if any(result.status == "interrupted" for result in results):
            raise KeyboardInterrupt
        if self.folder is not None:
            path = self.folder / TREES.replace("*", f"{rows[0].number:06d}")
            ids = {"ids": [row.id for row in rows]}
            _save(self.search, path, self.model, self.name, terminals, seeds, results, ids)
        self.unfinished += sum(not result.finished for result in results)
        return results

    def pass_over(self, lines: int) -> None:
        """Is told how many lines are through; the bar shows tokens, which say more."""

    def tell(self) -> None:
        """Say how many rows are unfinished, and what to try."""
        if self.unfinished:
            self.say.note(
                f"{self.unfinished} texts are unfinished, see `search.status` in their lines; try a larger budget or "
                "fewer --spans, with --overwrite"
            )


def line_fields(result: Any) -> dict[str, Any]:
    """What a line of a batch says beside the text: no seconds, so that the same search gives the same line."""
    figures = _figures(result)
    del figures["spent"]["seconds"]
    return {"search": figures}


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


def _figures(result: Any) -> dict[str, Any]:
    names = ("value", "components", "status", "finished")
    return {**{name: getattr(result, name) for name in names}, "spent": asdict(result.spent)}


def _moves(bar: Bar, what: str) -> Callable[[int, int | None], None]:
    def moved(done: int, most: int | None) -> None:
        if most is None:
            bar.advance(done)
        else:
            bar.show(what, done, most)

    return moved


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _made_with(search: Search, model: Any, terminals: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """All that decides which spans a tree may hold; the contexts are in the tree itself."""
    from agents.simulation.manifest import model_identity

    return {
        "method": search.method,
        "spans": search.spans,
        "terminals": list(terminals),
        "long": search.long,
        "seeds": list(seeds),
        "menu": [asdict(action) for action in search.menu],
        "schedule": asdict(search.schedule) if search.guided else None,
        "sampling": asdict(search.sampling),
        "rewards": search.chosen_rewards(model, bool(terminals)).model_dump(mode="json"),
        "identity": model_identity(model),
    }


def _save(
    search: Search,
    path: Path,
    model: Any,
    name: str | None,
    terminals: Sequence[str],
    seeds: Sequence[int],
    results: Sequence[Any],
    more: Mapping[str, Any] | None = None,
) -> None:
    from steer.search.tree_file import save_tree

    record = {
        "model": str(Path(name).resolve()) if name and Path(name).is_dir() else name or model.latent_config.name,
        "policy": search.policy,
        "policy_options": dict(search.policy_options),
        "budget": asdict(search.budget(model)),
        **_made_with(search, model, terminals, seeds),
        "status": [result.status for result in results],
        "finished": [result.finished for result in results],
        "chosen": [result.node for result in results],
        **(more or {}),
    }
    save_tree(results[0].tree, path, record)


def _load(search: Search, path: Path, model: Any, terminals: Sequence[str], seeds: Sequence[int]) -> Any:
    from steer.search.tree_file import load_tree

    tree, record = load_tree(path)
    for name, now in json.loads(json.dumps(_made_with(search, model, terminals, seeds))).items():
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
