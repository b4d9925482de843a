"""The family of rewards: what each is called, what it takes, and when it counts unless told otherwise.

| name | looks at | range | counts at | weight |
|---|---|---|---|---|
| similarity | cosine of latent and terminal | [-1, 1] | end | 1 |
| avoid | largest cosine with what is to be avoided | [-1, 1] | step | -0.5 |
| reach | probability that the terminal comes in time | [0, 1] | potential | 0.5 |
| fluency | nats per token under the bare base | at most 0 | step | 0.1 |
| repetition | share of n-grams that were there before | [0, 1] | step | -0.5 |
| rubric | log-odds of yes over no | unbounded | end | 0.1 |
| preference | a trained head's log-odds | unbounded | end | 0.1 |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from steer.rewards.latent import PreferenceOptions, avoid, check_preference, check_reach, preference, reach, similarity
from steer.rewards.rubric import RubricOptions, check_rubric, rubric
from steer.rewards.states import Options, States
from steer.rewards.text import RepetitionOptions, fluency, repetition

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel

Kind = Literal["step", "end", "potential"]


def _nothing(model: "LatentModel", options: Any) -> None:
    """For rewards that need nothing of the model."""


@dataclass(frozen=True)
class Reward:
    """A reward of the family.

    Attributes:
        score: `(states, options) -> [n]` float32; a pure function.
        at: when it counts by default.
        weight: by default; negative where less is better.
        options: the record that `score` takes.
        check: `(model, options)`; raises where this model cannot serve it, before any search starts.
        costly: asked only about nodes where it counts.
    """

    score: Callable[[States, Any], Tensor]
    at: Kind
    weight: float
    options: type[Options] = Options
    check: "Callable[[LatentModel, Any], Any]" = _nothing
    costly: bool = False


REWARDS: dict[str, Reward] = {
    "similarity": Reward(similarity, "end", 1.0),
    "avoid": Reward(avoid, "step", -0.5),
    "reach": Reward(reach, "potential", 0.5, check=check_reach),
    "fluency": Reward(fluency, "step", 0.1),
    "repetition": Reward(repetition, "step", -0.5, RepetitionOptions),
    "rubric": Reward(rubric, "end", 0.1, RubricOptions, check_rubric, costly=True),
    "preference": Reward(preference, "end", 0.1, PreferenceOptions, check_preference),
}
