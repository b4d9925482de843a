"""Simulated characters whose goals are latents: scenarios, planner, simulation, logs, audit, figures.

    scenario = load_scenario(packaged_scenarios()["demo"])
    model = LatentModel.from_pretrained(scenario.model)
    summary = run_scenario(scenario, model, Path("runs/demo"))
    print(render_transcript(summary.path))

Names are loaded when they are first used: importing the package alone loads neither torch nor matplotlib.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from steer.lazy_exports import lazy_exports as _lazy_exports

if _TYPE_CHECKING:
    from agents.errors import AgentsError as AgentsError
    from agents.errors import GoalError as GoalError
    from agents.errors import RunBusy as RunBusy
    from agents.errors import RunDamaged as RunDamaged
    from agents.errors import RunExists as RunExists
    from agents.errors import RunMismatch as RunMismatch
    from agents.errors import RunNotFound as RunNotFound
    from agents.errors import RunWriteError as RunWriteError
    from agents.errors import ScenarioError as ScenarioError
    from agents.log.events import EndEvent as EndEvent
    from agents.log.events import Event as Event
    from agents.log.events import GoalEvent as GoalEvent
    from agents.log.events import OpeningEvent as OpeningEvent
    from agents.log.events import TurnEvent as TurnEvent
    from agents.plots.progress import plot_progress as plot_progress
    from agents.scenarios.loading import load_scenario as load_scenario
    from agents.scenarios.loading import packaged_scenarios as packaged_scenarios
    from agents.scenarios.loading import scenario_schema as scenario_schema
    from agents.scenarios.schema import Character as Character
    from agents.scenarios.schema import Goal as Goal
    from agents.scenarios.schema import Planner as Planner
    from agents.scenarios.schema import Sampling as Sampling
    from agents.scenarios.schema import Scenario as Scenario
    from agents.simulation.audit import AuditReport as AuditReport
    from agents.simulation.audit import Check as Check
    from agents.simulation.audit import audit_run as audit_run
    from agents.simulation.progress import Curve as Curve
    from agents.simulation.progress import GoalProgress as GoalProgress
    from agents.simulation.progress import Progress as Progress
    from agents.simulation.progress import read_progress as read_progress
    from agents.simulation.simulation import RunSummary as RunSummary
    from agents.simulation.simulation import resume_run as resume_run
    from agents.simulation.simulation import run_scenario as run_scenario
    from agents.simulation.transcript import render_transcript as render_transcript

__all__, __dir__, __getattr__ = _lazy_exports(__name__)
