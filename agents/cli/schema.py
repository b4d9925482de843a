"""`steer schema`."""

import typer

from agents.cli._output import output


def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from agents.scenarios.loading import scenario_schema

    output(ctx).json(scenario_schema())


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command(epilog="Example: steer schema > scenario.schema.json")(schema)
