"""`steer audit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli._errors import ExitCode
from agents.cli._options import JsonOption, ModelOption
from agents.cli._output import output
from agents.cli._runs import RunArgument, load_model_of

if TYPE_CHECKING:
    from agents.simulation.audit import AuditReport

EXAMPLE = "steer audit runs/demo-1 --replay"


def audit(
    ctx: typer.Context,
    run: RunArgument,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also write every turn again and compare, byte for byte.")
    ] = False,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the model read only the opening and the story.

    Proves from a run's files that its visible context was the opening and what was written, and nothing else. Exit
    code 3 if a check fails.
    """
    say = output(ctx)
    from agents.errors import RunMismatch, ScenarioError
    from agents.simulation.audit import audit_run

    loaded = None
    if replay or model is not None:
        try:
            loaded = load_model_of(say, run, model)
        except (RunMismatch, ScenarioError):
            pass  # the run's scenario was changed: that is for the audit to tell
    with say.status("auditing"):
        report = _with_figure(run, audit_run(run, model=loaded, replay=replay and loaded is not None))
    if as_json:
        say.json({"run": run, "ok": report.ok, "checks": report.checks})
    else:
        marks = {True: ("ok", "green"), False: ("FAILED", "bold red")}
        say.table((marks[check.ok], check.name, check.detail) for check in report.checks)
    if not report.ok:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _with_figure(run: Path, report: "AuditReport") -> "AuditReport":
    """The report with a check of the figure, where there is one: drawing stands above the audit."""
    from agents.errors import AgentsError
    from agents.plots.progress import FILE_NAME, figure_problem
    from agents.simulation.audit import AuditReport, Check

    if not (run / FILE_NAME).exists():
        return report
    try:
        problem = figure_problem(run)
    except AgentsError as error:
        problem = str(error)
    checks = (*report.checks, Check("figure", problem is None, problem or "what the logs give"))
    return AuditReport(report.ok and problem is None, checks)
