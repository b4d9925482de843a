"""`steer demo`, `steer run` and `steer resume`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli.guard import InputError
from agents.cli.models import JsonOption, ModelOption, load_model
from agents.cli.output import Output, new_folder, output

RUNS = Path("runs")
DEMO = "demo"
OnEvent = Callable[[Any, str], None]
TurnsOption = Annotated[int | None, typer.Option("--turns", min=1, help="Play so many turns, not the scenario's.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of the run; by default a new one in ./runs.", show_default=False),
]


def demo(ctx: typer.Context, out: OutOption = None, turns: TurnsOption = None) -> None:
    """Play the packaged scenario on the packaged model, guided and unguided side by side.

    Shows the characters' goals, which the model never reads, then the story, then which goals were reached.
    """
    say = output(ctx)
    from rich.console import Console

    from agents.cli.show import Stage, goal_table
    from agents.scenarios.schema import load_scenario
    from agents.simulation.simulation import run_scenario

    scenario = load_scenario(_scenario_path(DEMO))
    loaded = load_model(say, scenario.model)
    console = Console()
    stage = Stage(console, ("guided", "unguided"))
    total = 2 * (turns or scenario.turns)
    with _folder(out, DEMO) as folder, _advice(say, folder), _counting(say, total, stage) as on_event:
        summary = run_scenario(scenario, loaded, folder, turns=turns, twin=True, on_event=on_event)
    picture = _plot(say, folder)
    console.print(goal_table(summary.goals))
    say.result(f"The run is in {folder} (transcript.md, {picture.name}); `steer audit {folder}` checks it.")


def run(
    ctx: typer.Context,
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a packaged one's name.")],
    out: OutOption = None,
    model: ModelOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Another seed than the scenario's.")] = None,
    turns: TurnsOption = None,
    no_twin: Annotated[bool, typer.Option("--no-twin", help="Leave out the unguided run beside it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Play a scenario. Prints the folder of the run."""
    say = output(ctx)
    from agents.scenarios.schema import load_scenario
    from agents.simulation.simulation import run_scenario

    path = _scenario_path(scenario)
    loaded_scenario = load_scenario(path)
    if model is not None:
        # The run keeps its scenario: with the model in it, `steer resume` needs no --model.
        name = str(Path(model).resolve()) if Path(model).is_dir() else model
        loaded_scenario = loaded_scenario.model_copy(update={"model": name})
    loaded = load_model(say, loaded_scenario.model)
    total = (turns or loaded_scenario.turns) * (1 if no_twin else 2)
    with _folder(out, path.stem) as folder, _advice(say, folder), _counting(say, total) as on_event:
        summary = run_scenario(
            loaded_scenario, loaded, folder, seed=seed, turns=turns, twin=not no_twin, on_event=on_event
        )
    _finish(say, folder, summary, as_json)


def resume(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that was stopped.")],
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was stopped; the text is what it would have been without the stop."""
    say = output(ctx)
    from agents.simulation.simulation import resume_run

    loaded = load_model_of(say, run, model)
    with _advice(say, run), _counting(say, None) as on_event:
        summary = resume_run(run, loaded, on_event=on_event)
    _finish(say, run, summary, as_json)


def load_model_of(say: Output, run: Path, model: str | None) -> Any:
    """The model that a run was made with, or `model` in its place.

    Raises:
        AgentsError: there is no run in that folder, or it is damaged.
        SteerError: the model cannot be loaded.
    """
    from agents.simulation.manifest import read_manifest, read_scenario

    return load_model(say, model or read_scenario(run, read_manifest(run)).model)


def _folder(out: Path | None, name: str) -> AbstractContextManager[Path]:
    """The folder that was asked for, or a new one of this name among the runs."""
    return nullcontext(out) if out is not None else new_folder(RUNS, name)


def _scenario_path(name: str) -> Path:
    """A scenario file, or the packaged scenario of that name."""
    from agents.scenarios.schema import packaged_scenarios

    if Path(name).is_file():
        return Path(name)
    packaged = packaged_scenarios()
    if name in packaged:
        return packaged[name]
    raise InputError(f"no scenario file at {name!r}; packaged scenarios: {', '.join(packaged) or 'none'}")


@contextmanager
def _counting(say: Output, total: int | None, then: OnEvent | None = None) -> Iterator[OnEvent]:
    """Count turns on a progress bar, and hand every event on."""
    done = 0
    with say.progress("turns", total) as bar:

        def on_event(event: Any, arm: str) -> None:
            nonlocal done
            if event.type == "turn":
                done += 1
                bar.advance(done)
            if then is not None:
                with bar.aside():
                    then(event, arm)

        yield on_event


@contextmanager
def _advice(say: Output, folder: Path) -> Iterator[None]:
    """Say how to go on when a run is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "manifest.json").is_file():
            say.note(f"stopped; nothing is lost: steer resume {folder}")
        raise


def _finish(say: Output, folder: Path, summary: Any, as_json: bool) -> None:
    """Draw the plot, show a person what became of the goals, and print the folder."""
    picture = _plot(say, folder)
    if as_json:
        say.json({"run": folder, "plot": picture, "summary": summary})
        return
    if summary.goals and not say.quiet:
        from rich.console import Console

        from agents.cli.show import goal_table

        Console(stderr=True).print(goal_table(summary.goals))
    say.result(str(folder))


def _plot(say: Output, folder: Path) -> Path:
    from agents.reports.plots import plot_progress

    with say.status("drawing"):
        return plot_progress(folder)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(epilog="Example: steer demo --turns 4 --out runs/first")(demo)
    app.command(epilog="Example: steer run my-scenario.yaml --seed 7 --no-twin")(run)
    app.command(epilog="Example: steer resume runs/demo-1")(resume)
