"""`steer resume`."""

import typer

from agents.cli._options import JsonOption, ModelOption
from agents.cli._output import output
from agents.cli._runs import RunArgument, finish, follow, load_model_of

EXAMPLE = "steer resume runs/demo-1"


def resume(ctx: typer.Context, run: RunArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Go on with a run that was stopped.

    The text is what it would have been without the stop.
    """
    say = output(ctx)
    from agents.simulation.simulation import resume_run

    loaded = load_model_of(say, run, model)
    with follow(say, run, None) as on_event:
        summary = resume_run(run, loaded, on_event=on_event)
    finish(say, run, summary, as_json=as_json)
