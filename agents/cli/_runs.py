"""What `steer demo`, `run`, `resume` and `audit` share: the folder of a run, its model, how it is followed and ends."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli._models import load_model
from agents.cli._output import Output, new_folder

if TYPE_CHECKING:
    from agents.scenarios.schema import Scenario
    from agents.simulation.simulation import RunSummary
    from steer.models.latent_model import LatentModel

RUNS = Path("runs")
OnEvent = Callable[[Any, str], None]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
TurnsOption = Annotated[int | None, typer.Option("--turns", min=1, help="Turns to play, instead of the scenario's.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of the run; by default a new one in ./runs.", show_default=False),
]


def run_folder(out: Path | None, name: str) -> AbstractContextManager[Path]:
    """The folder that was asked for, or a new one of this name in `runs`."""
    return nullcontext(out) if out is not None else new_folder(RUNS, name)


def with_model(scenario: "Scenario", model: str | None) -> "Scenario":
    """A scenario played by another model than its own; None leaves it as it is.

    The run keeps its scenario: with the model in it, `steer resume` needs no --model.
    """
    if model is None:
        return scenario
    return scenario.model_copy(update={"model": str(Path(model).resolve()) if Path(model).is_dir() else model})


def load_model_of(say: Output, run: Path, model: str | None) -> "LatentModel":
    """The model that a run was made with, or `model` in its place.

    Raises:
        AgentsError: there is no run in that folder, or it is damaged.
        SteerError: the model cannot be loaded.
    """
    from agents.simulation.manifest import read_manifest, read_scenario

    return load_model(say, model or read_scenario(run, read_manifest(run)).model)


@contextmanager
def follow(say: Output, folder: Path, total: int | None, then: OnEvent | None = None) -> Iterator[OnEvent]:
    """Count the turns of a run on a progress bar, hand every event on, and say after Ctrl-C how to go on."""
    done = 0
    try:
        with say.progress("turns", total) as bar:

            def on_event(event: Any, arm: str) -> None:
                nonlocal done
                if event.type == "turn":
                    done += 1
                    bar.show("turns", done, total)
                if then is not None:
                    with bar.aside():
                        then(event, arm)

            yield on_event
    except KeyboardInterrupt:
        if (folder / "manifest.json").is_file():
            say.note(f"stopped; nothing is lost: steer resume {folder}")
        raise


def draw(say: Output, folder: Path) -> Path:
    """Draw how near the goals of a run came. Returns the picture's file."""
    from agents.plots.progress import plot_progress

    with say.status("drawing"):
        return plot_progress(folder)


def finish(say: Output, folder: Path, summary: "RunSummary", *, as_json: bool) -> None:
    """Draw the plot, show a person what became of the goals, and print the folder."""
    picture = draw(say, folder)
    if as_json:
        say.json({"run": folder, "plot": picture, "summary": summary})
        return
    if summary.goals and not say.quiet:
        from agents.cli._console import console
        from agents.cli._run_output import goal_table

        console(stderr=True).print(goal_table(summary.goals))
    say.result(str(folder))
