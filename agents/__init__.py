"""Simulated characters whose goals are latents: scenarios, planner, simulation, logs, audit, figures.

    scenario = load_scenario(packaged_scenarios()["demo"])
    model = LatentModel.from_pretrained(scenario.model)
    summary = run_scenario(scenario, model, Path("runs/demo"))
    print(render_transcript(summary.path))

Names are loaded when they are first used: importing the package alone loads neither torch nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.errors import (
        AgentsError,
        GoalError,
        RunBusy,
        RunDamaged,
        RunExists,
        RunMismatch,
        RunNotFound,
        RunWriteError,
        ScenarioError,
    )
    from agents.log.events import EndEvent, Event, GoalEvent, OpeningEvent, TurnEvent
    from agents.plots.progress import plot_progress
    from agents.scenarios.schema import (
        Character,
        Goal,
        Planner,
        Sampling,
        Scenario,
        load_scenario,
        packaged_scenarios,
        scenario_schema,
    )
    from agents.simulation.audit import AuditReport, Check, audit_run
    from agents.simulation.progress import Curve, GoalProgress, Progress, read_progress
    from agents.simulation.simulation import RunSummary, resume_run, run_scenario
    from agents.simulation.transcript import render_transcript

__all__ = [
    "AgentsError",
    "AuditReport",
    "Character",
    "Check",
    "Curve",
    "EndEvent",
    "Event",
    "Goal",
    "GoalError",
    "GoalEvent",
    "GoalProgress",
    "OpeningEvent",
    "Planner",
    "Progress",
    "RunBusy",
    "RunDamaged",
    "RunExists",
    "RunMismatch",
    "RunNotFound",
    "RunSummary",
    "RunWriteError",
    "Sampling",
    "Scenario",
    "ScenarioError",
    "TurnEvent",
    "audit_run",
    "load_scenario",
    "packaged_scenarios",
    "plot_progress",
    "read_progress",
    "render_transcript",
    "resume_run",
    "run_scenario",
    "scenario_schema",
]

_MODULES = {
    "agents.simulation.audit": ("AuditReport", "Check", "audit_run"),
    "agents.errors": (
        "AgentsError",
        "GoalError",
        "RunBusy",
        "RunDamaged",
        "RunExists",
        "RunMismatch",
        "RunNotFound",
        "RunWriteError",
        "ScenarioError",
    ),
    "agents.log.events": ("EndEvent", "Event", "GoalEvent", "OpeningEvent", "TurnEvent"),
    "agents.plots.progress": ("plot_progress",),
    "agents.simulation.progress": ("Curve", "GoalProgress", "Progress", "read_progress"),
    "agents.scenarios.schema": (
        "Character",
        "Goal",
        "Planner",
        "Sampling",
        "Scenario",
        "load_scenario",
        "packaged_scenarios",
        "scenario_schema",
    ),
    "agents.simulation.simulation": ("RunSummary", "resume_run", "run_scenario"),
    "agents.simulation.transcript": ("render_transcript",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
