"""`steer plot`: pictures of whatever a run holds."""

from pathlib import Path
from typing import Annotated

import typer

from agents.cli._options import JsonOption
from agents.cli._output import Output, output
from agents.cli._trees import RootOption, WordsOption, find_trees, open_words
from agents.errors import InputError

# Of `agents.experiments`, named here so that `--help` imports nothing heavy.
EXPERIMENT = "experiment.json"

EXAMPLE = "steer plot runs/demo-1"


def plot(
    ctx: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a simulation, an experiment or trees, or a tree.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Of one tree: a .png, .pdf or .svg; by default a .png beside it."),
    ] = None,
    root: RootOption = None,
    model: WordsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a run, a search tree or an experiment.

    Of a run: how near its goals came, and its search trees. Of a tree with several roots: the first, or the one that
    --root names. Prints the files drawn.
    """
    say = output(ctx)
    from agents.simulation.manifest import MANIFEST

    if (run / EXPERIMENT).is_file():
        _plot_experiment(say, run, plain_only=out is None and root is None and model is None, as_json=as_json)
        return
    is_simulation = (run / MANIFEST).is_file()
    try:
        trees = find_trees(run)
    except InputError as error:
        if not run.is_dir():
            raise
        if not is_simulation:
            raise InputError(f"nothing to draw: no {MANIFEST} of a simulation in {run}, and {error}") from error
        trees = []
    if out is not None and len(trees) != 1:
        raise typer.BadParameter(f"--out is for the picture of one tree; {run} holds {len(trees)}")
    drawn: list[Path] = []
    if is_simulation and out is None:
        from agents.plots.progress import plot_progress

        with say.status("drawing"):
            drawn.append(plot_progress(run))
    if trees:
        from agents.plots.trees import plot_tree
        from steer.search.tree_file import load_tree

        for path in trees:
            tree, record = load_tree(path)
            to_text = open_words(say, tree, record, model)
            name = path.stem if root is None else f"{path.stem}-root-{root}"
            with say.status("drawing"):
                drawn.append(plot_tree(tree, out or path.with_name(f"{name}.png"), root=root or 0, to_text=to_text))
            if root is None and len(tree.roots) > 1:
                say.note(f"{path}: root 0 of {len(tree.roots)}; --root N draws another")
    say.files(drawn, as_json=as_json, name="plots")


def _plot_experiment(say: Output, run: Path, *, plain_only: bool, as_json: bool) -> None:
    if not plain_only:
        raise typer.BadParameter("--out, --root and --model belong to trees; an experiment's pictures go to its folder")
    from agents.experiments.figures import plot_results

    with say.status("drawing"):
        drawn = plot_results(run)
    say.files(drawn, as_json=as_json, name="plots")
