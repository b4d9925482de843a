"""How near the last span is, as a latent, to what is wished for and to what is to be avoided."""

from torch import Tensor
from torch.nn.functional import cosine_similarity

from steer.errors import RewardError
from steer.rewards.options import Options
from steer.rewards.states import States


def similarity(states: States, options: Options) -> Tensor:
    """Cosine of the last span's latent and the terminal: `[n]` float32 in [-1, 1].

    Raises:
        RewardError: there are no terminals.
    """
    return cosine_similarity(states.latents, states.need_terminals("similarity"), dim=1)


def avoid(states: States, options: Options) -> Tensor:
    """The largest cosine of the last span's latent and any latent to avoid: `[n]` float32 in [-1, 1].

    Weight it negatively.

    Raises:
        RewardError: there is nothing to avoid.
    """
    if states.avoid is None:
        raise RewardError("reward 'avoid' needs latents to avoid; give some, or leave the reward out")
    latents = states.avoid if states.avoid.ndim == 3 else states.avoid[None]
    return cosine_similarity(states.latents[:, None], latents, dim=2).amax(dim=1)
