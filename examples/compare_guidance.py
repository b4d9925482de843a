"""One context, one goal, one seed: unguided, a fixed weight, and a weight annealed to 1, side by side.

The three rows are written in one batch: a pull may have a schedule per row, and a row of weight zero is unguided. The
last column is the cosine of the last span with the goal, by the encoder that also steers: it shows the effect and does
not judge it. For that use `steer eval`, which asks an independent embedder.

python examples/compare_guidance.py
python examples/compare_guidance.py --context "A fox sat by his den." --goal "The fox gave his bread to the bird."
"""

import argparse
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from steer import LatentModel, Pull, SamplingConfig, Written, make_schedule, write_guided

CONTEXT = "Once upon a time there was a boy named Tom. He lived in a small house near the sea."
GOAL = "Tom found a shiny box full of gold coins."


def compare(
    model: LatentModel, context: str, goal: str, *, spans: int, seed: int
) -> dict[str, tuple[torch.Tensor, Written, float]]:
    """For each arm its weights `[spans]`, what was written, and the cosine of the last span with the goal."""
    terminal = model.encode(goal)[0]
    arms = {
        "unguided": torch.zeros(spans),
        "fixed": make_schedule("constant", spans, start=0.5),
        "annealed": make_schedule("bridge", spans),
    }
    rows = write_guided(
        model,
        [context] * len(arms),
        pulls=[Pull(terminal, torch.stack(list(arms.values())))],
        spans=spans,
        seeds=[seed] * len(arms),
        sampling=SamplingConfig(temperature=0.6, top_p=0.95),
    )
    ends = model.encode_ids([row.ids[-model.span_tokens :] for row in rows])
    cosines = torch.nn.functional.cosine_similarity(ends, terminal[None]).tolist()
    return {name: (arms[name], row, cosine) for name, row, cosine in zip(arms, rows, cosines, strict=True)}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table with a row per arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-fable-6m", help="a model folder or hub id")
    parser.add_argument("--context", default=CONTEXT, help="the visible text")
    parser.add_argument("--goal", default=GOAL, help="where to; at most one span long, never shown to the model")
    parser.add_argument("--spans", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    model = LatentModel.from_pretrained(args.model)

    table = Table("guidance", "weights", "text", "cosine", show_lines=True)
    for name, (weights, row, cosine) in compare(
        model, args.context, args.goal, spans=args.spans, seed=args.seed
    ).items():
        text = Text(" ".join(row.text.split()))
        table.add_row(name, " ".join(f"{weight:.2f}" for weight in weights.tolist()), text, f"{cosine:.2f}")
    console = Console()
    console.print(Text(f"Context: {args.context}\nGoal:    {args.goal}"))
    console.print(table)


if __name__ == "__main__":
    main()
