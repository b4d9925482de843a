"""`steer demo`."""

import typer

from agents.cli._models import load_model
from agents.cli._options import ModelOption
from agents.cli._output import output
from agents.cli._runs import OutOption, TurnsOption, draw, follow, run_folder, with_model

DEMO = "demo"  # the packaged scenario

EXAMPLE = "steer demo --turns 4 --out runs/first"


def demo(ctx: typer.Context, out: OutOption = None, model: ModelOption = None, turns: TurnsOption = None) -> None:
    """Play the packaged scenario, guided and unguided side by side.

    Shows the characters' goals, which the model never reads, then the story, then which goals were reached.
    """
    say = output(ctx)
    from agents.cli._console import console
    from agents.cli._run_output import Stage, goal_table
    from agents.scenarios.loading import load_scenario
    from agents.simulation.simulation import run_scenario

    scenario = with_model(load_scenario(DEMO), model)
    loaded = load_model(say, scenario.model)
    screen = console()
    stage = Stage(screen, ("guided", "unguided"))
    with run_folder(out, DEMO) as folder, follow(say, folder, 2 * (turns or scenario.turns), stage) as on_event:
        summary = run_scenario(scenario, loaded, folder, turns=turns, baseline=True, on_event=on_event)
    picture = draw(say, folder)
    screen.print(goal_table(summary.goals))
    say.result(f"The run is in {folder} (transcript.md, {picture.name}); `steer audit {folder}` checks it.")
