"""A scenario of your own: play it with its unguided baseline, read what became of the goals, and audit the run.

Started again with the same folder it goes on where it was stopped, or finds that nothing is left to do.

python examples/own_scenario/run.py
python examples/own_scenario/run.py --turns 4 --out runs/lake-short
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from agents import audit_run, load_scenario, plot_progress, render_transcript, resume_run, run_scenario
from steer import LatentModel

SCENARIO = Path(__file__).with_name("scenario.yaml")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the transcript, a line per goal, and the checks of the audit."""
    scenario = load_scenario(SCENARIO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=scenario.model, help="a model folder or hub id")
    parser.add_argument("--out", type=Path, default=Path("runs/lake"), help="folder of the run")
    parser.add_argument("--turns", type=int, default=None, help="play so many turns, not the scenario's")
    args = parser.parse_args(argv)
    model = LatentModel.from_pretrained(args.model)

    if (args.out / "manifest.json").is_file():
        summary = resume_run(args.out, model)
    else:
        # The run keeps its scenario: with the model's name in it, `steer resume` finds the model by itself.
        own = scenario.model_copy(update={"model": args.model})
        summary = run_scenario(own, model, args.out, turns=args.turns)

    print(render_transcript(summary.path))
    for goal in summary.goals:
        arms = {"guided": goal.guided, "unguided": goal.unguided}
        nearest = {name: curve.best for name, curve in arms.items() if curve is not None}
        figures = ", ".join(f"{name} {'-' if best is None else f'{best:.2f}'}" for name, best in nearest.items())
        print(f"{goal.name} {'wants' if goal.kind == 'terminal' else 'avoids'}: {goal.text} Nearest: {figures}")
    print(f"\nFigure: {plot_progress(summary.path)}")
    for check in audit_run(summary.path, model=model).checks:
        print(f"{'ok    ' if check.ok else 'FAILED'} {check.name}: {check.detail}")


if __name__ == "__main__":
    main()
