"""Which goal is to become active: policies, each a plain function from the facts of an open goal to its score.

| name | score |
|---|---|
| balanced | `(1 + similarity) / 2 * weight / turns`: near, dear and due |
| similarity | `(1 + similarity) / 2`: what the story is nearest to |
| reach | the chance that it is reached in time; of a model without a reach head as `similarity` |
| priority | its weight |
| deadline | `1 / turns`: what is due first |

`turns` are the character's own up to the deadline, so with `balanced` a goal that must be reached now counts twice as
much as one that has another turn. Among equals the goal that is nearer to the state is chosen. A new policy is a
function and a line in `CHOICES`.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known of an open goal when a character chooses.

    Attributes:
        similarity: cosine of state and terminal.
        weight: of the goal.
        turns: the character's own turns up to the deadline, the present one included; at least 1.
        chance: probability that the terminal is told before the deadline, by the reach head; None without one.
    """

    similarity: float
    weight: float
    turns: int
    chance: float | None


def balanced(facts: Facts) -> float:
    """Near, dear and due."""
    return (1 + facts.similarity) / 2 * facts.weight / facts.turns


def similarity(facts: Facts) -> float:
    """What the story is nearest to."""
    return (1 + facts.similarity) / 2


def reach(facts: Facts) -> float:
    """What is likeliest to be reached in time."""
    return similarity(facts) if facts.chance is None else facts.chance


def priority(facts: Facts) -> float:
    """What weighs most."""
    return facts.weight


def deadline(facts: Facts) -> float:
    """What is due first."""
    return 1 / facts.turns


CHOICES: dict[str, Callable[[Facts], float]] = {
    "balanced": balanced,
    "similarity": similarity,
    "reach": reach,
    "priority": priority,
    "deadline": deadline,
}


def arrival_gain(chance: float, *, target: float, hurry: float) -> float:
    """Arrival control: the factor on a goal's weights when its chance falls behind.

    1 while the chance that the goal is reached in time is at least `target`; then it grows evenly, to `1 + hurry` where
    there is none.
    """
    return 1 + hurry * max(0.0, 1 - chance / target)
