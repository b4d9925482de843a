"""`steer run`."""

from typing import Annotated

import typer

from agents.cli._models import load_model
from agents.cli._options import JsonOption, ModelOption
from agents.cli._output import output
from agents.cli._runs import OutOption, TurnsOption, finish, follow, run_folder, with_model

EXAMPLE = "steer run my-scenario.yaml --seed 7 --no-baseline"


def run(
    ctx: typer.Context,
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, or a packaged one's name.")],
    out: OutOption = None,
    model: ModelOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed, instead of the scenario's.")] = None,
    turns: TurnsOption = None,
    no_baseline: Annotated[bool, typer.Option("--no-baseline", help="Leave out the unguided run beside it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Play a scenario. Prints the folder of the run."""
    say = output(ctx)
    from agents.scenarios.loading import find_scenario, load_scenario
    from agents.simulation.simulation import run_scenario

    path = find_scenario(scenario)
    found = load_scenario(path)
    found = with_model(found, model)
    loaded = load_model(say, found.model)
    total = (turns or found.turns) * (1 if no_baseline else 2)
    with run_folder(out, path.stem) as folder, follow(say, folder, total) as on_event:
        summary = run_scenario(
            found, loaded, folder, seed=seed, turns=turns, baseline=not no_baseline, on_event=on_event
        )
    finish(say, folder, summary, as_json=as_json)
