"""Search, guidance, and both, on the same pairs of opening and ending: an experiment made and run in Python.

Started again with the same folder it goes on where it was stopped. With so few pairs the intervals are wide; the whole
comparison is examples/experiments/search_vs_guidance.yaml, for `steer experiment`.

python examples/search_or_guidance.py
python examples/search_or_guidance.py --pairs 20 --budget 16 --out runs/larger
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from agents.experiments.pairs.spec import PairExperiment
from agents.experiments.report import write_report
from agents.experiments.run import run_experiment
from agents.experiments.tables import markdown
from steer import LatentModel


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, and where the report is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-fable-6m", help="a model folder or hub id")
    parser.add_argument("--pairs", type=int, default=6, help="of the packaged file")
    parser.add_argument("--spans", type=int, default=6, help="to write for each")
    parser.add_argument("--budget", type=float, default=4, help="of searches, in multiples of a text's tokens")
    parser.add_argument("--out", type=Path, default=Path("runs/search-or-guidance"), help="folder of the run")
    args = parser.parse_args(argv)
    experiment = PairExperiment.model_validate(
        {
            "id": "search-or-guidance",
            "title": "Search, guidance, and both",
            "model": args.model,
            "pairs": {"packaged": "stories"},
            "limit": args.pairs,
            "spans": args.spans,
            "sampling": {"temperature": 0.7, "top_p": 0.95},
            "arms": [
                {"name": "unguided", "method": "unguided"},
                {"name": "search", "method": "search", "policy": "best_of_n", "budget": args.budget},
                {"name": "guidance", "method": "annealed", "guidance_scale": 1.5},
                {"name": "both", "method": "guided-search", "policy": "best_of_n", "budget": args.budget},
            ],
        }
    )
    outcome = run_experiment(experiment, args.out, lambda: LatentModel.from_pretrained(args.model))
    print(markdown(outcome.results))
    print(f"Report: {write_report(outcome.folder)[0]}")


if __name__ == "__main__":
    main()
