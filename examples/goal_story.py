"""A story that arrives at an ending of your own: unguided, by guidance alone, and by a search over pulls.

The ending is never shown to the model. Guidance writes the story once, and each span costs a draft; the search writes
several and keeps the one that its rewards like best, within a budget in multiples of a plain text.

python examples/goal_story.py
python examples/goal_story.py --context "A fox sat by his den." --goal "The fox gave his bread to the bird." --budget 16
"""

import argparse
from collections.abc import Sequence

from steer import LatentModel, Pull, SamplingConfig, make_schedule, write_guided
from steer.search.action import Action
from steer.search.budget import Budget
from steer.search.searched import write_searched

CONTEXT = "Tom and his dog went to the lake. It was a warm day and the water was blue."
GOAL = "They found a gold coin in the sand."


def main(argv: Sequence[str] | None = None) -> None:
    """Print three stories, and what each cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-fable-6m", help="a model folder or hub id")
    parser.add_argument("--context", default=CONTEXT, help="how the story begins")
    parser.add_argument("--goal", default=GOAL, help="how it shall end; at most one span long")
    parser.add_argument("--spans", type=int, default=6, help="to write at most")
    parser.add_argument("--budget", type=int, default=8, help="of the search, in multiples of a plain text's tokens")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    model = LatentModel.from_pretrained(args.model)
    goal = model.encode(args.goal)  # [1, z_dim]
    common = {"spans": args.spans, "seeds": [args.seed], "sampling": SamplingConfig(temperature=0.7, top_p=0.95)}
    plain_tokens = args.spans * model.span_tokens

    print(f"{args.context}\nGoal: {args.goal}\n")
    plain = write_guided(model, [args.context], **common)[0]
    print(f"Unguided: {' '.join(plain.text.split())}\n")

    pull = Pull(goal, make_schedule("bridge", args.spans))  # from no weight to 1, with the last span
    guided = write_guided(model, [args.context], pulls=[pull], guidance_scale=1.5, **common)[0]
    print(f"Guided: {' '.join(guided.text.split())}\n")

    found = write_searched(
        model,
        [args.context],
        terminals=goal,
        policy="best_of_n",
        budget=Budget(tokens=args.budget * plain_tokens),
        menu=[Action(strength=1.0, guidance_scale=1.5), Action(strength=0.7, guidance_scale=1.5)],
        **common,
    )[0]
    print(f"Searched, {found.spent.tokens} tokens: {' '.join(found.text.split())}")


if __name__ == "__main__":
    main()
