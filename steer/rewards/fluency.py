"""How likely the last span is to the base without any steering."""

from torch import Tensor

from steer.errors import RewardError
from steer.rewards.options import Options
from steer.rewards.states import States


def fluency(states: States, options: Options) -> Tensor:
    """Mean log-probability per token of the last span under the bare base: `[n]` float32, nats, at most 0.

    It is what `states.base_logprobs` gives.

    Raises:
        RewardError: that is not `[n]`.
    """
    logprobs = states.base_logprobs()
    if logprobs.shape != (len(states),):
        raise RewardError(f"base_logprobs must give [{len(states)}]; got {list(logprobs.shape)}")
    return logprobs
