"""Encode sentences, walk from one to another in latent space, and steer a continuation to a goal that it never reads.

python examples/quickstart.py
python examples/quickstart.py --model MODEL --seed 3
"""

import argparse
from collections.abc import Sequence

import torch

from steer import LatentModel, Pull, SamplingConfig, slerp, write_guided

CONTEXT = "One day, a little girl named Lily went to the park with her dog."
SUN, RAIN = "They played with a ball in the warm sun.", "It began to rain and they were cold and wet."
GOAL = "Lily shared a big yummy cake with her friends."
SPANS = 4


def main(argv: Sequence[str] | None = None) -> None:
    """Print three cosines, five spans from a path between two latents, and one context continued twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-fable-6m", help="a model folder or hub id")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    model = LatentModel.from_pretrained(args.model)
    sampling = SamplingConfig(temperature=0.6, top_p=0.95)

    latents = model.encode([SUN, RAIN, GOAL])  # [3, z_dim]
    sun, rain, goal = latents
    units = latents / latents.norm(dim=1, keepdim=True)
    print(f"1. Latents of width {latents.shape[1]}. Cosine of sun and rain: {units[0] @ units[1]:.2f}, ", end="")
    print(f"sun and cake: {units[0] @ units[2]:.2f}, rain and cake: {units[1] @ units[2]:.2f}\n")

    print(f"2. From sun to rain, each span written from a point on the way, after: {CONTEXT}")
    shares = torch.linspace(0, 1, 5)
    path = slerp(sun.expand(5, -1), rain.expand(5, -1), shares)
    # Weight 1 writes from the latent itself; one seed for all rows leaves the latent as the only difference.
    pull = Pull(path, torch.ones(1))
    rows = write_guided(model, [CONTEXT] * 5, pulls=[pull], spans=1, seeds=[args.seed] * 5, sampling=sampling)
    for share, row in zip(shares.tolist(), rows, strict=True):
        print(f"   {share:.2f}  {' '.join(row.text.split())}")

    print(f"\n3. The same context continued, towards: {GOAL}")
    for name, toward in (("unguided", ()), ("steered", goal)):
        row = model.write(CONTEXT, toward=toward, spans=SPANS, seed=args.seed, sampling=sampling)
        print(f"   {name}: {' '.join(row.text.split())}\n")


if __name__ == "__main__":
    main()
