"""`steer schema`."""

import typer

from agents.cli._output import output

EXAMPLE = "steer schema > scenario.schema.json"


def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from agents.scenarios.loading import scenario_schema

    output(ctx).json(scenario_schema())
