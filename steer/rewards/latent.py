"""Rewards that look at latents: similarity to a terminal, what is to be avoided, and the trained heads."""

import functools
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import cosine_similarity

from steer.errors import RewardError
from steer.rewards.states import Options, States

if TYPE_CHECKING:
    from steer.heads.preference import PreferenceHead
    from steer.heads.reach import ReachHead
    from steer.models.latent_model import LatentModel


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


def reach(states: States, options: Options) -> Tensor:
    """Probability that the terminal comes within the spans that remain: `[n]` float32 in [0, 1].

    Raises:
        RewardError: there are no terminals, or the model has no reach head.
    """
    head = check_reach(states.model, options)
    terminals = states.need_terminals("reach")
    return head.within(states.latents, terminals, list(states.remaining))


def check_reach(model: "LatentModel", options: Options) -> "ReachHead":
    """The model's reach head.

    Raises:
        RewardError: it has none.
    """
    head = getattr(model, "reach", None)
    if head is None:
        raise RewardError(
            "reward 'reach' needs a model with a reach head, and this one has none; train one, or use "
            "{reward: similarity, at: potential} in its place"
        )
    return head


class PreferenceOptions(Options):
    """Options of `preference`: `path` of a file written by `steer.heads.preference.PreferenceHead.save`."""

    path: str

    @functools.cached_property
    def head(self) -> "PreferenceHead":
        """The head, read once.

        Raises:
            CheckpointError: the file is missing, damaged, or no preference head.
        """
        from steer.heads.preference import PreferenceHead

        return PreferenceHead.load(self.path)


def preference(states: States, options: PreferenceOptions) -> Tensor:
    """Bradley-Terry score of the last span's latent: `[n]` float32, log-odds, of meaning only in comparison.

    Raises:
        CheckpointError: the head cannot be read.
        LatentError: it was made for latents of another width.
    """
    return options.head.score(states.latents)


def check_preference(model: "LatentModel", options: PreferenceOptions) -> None:
    """Read the head, and compare its encoder with the model's.

    Raises:
        CheckpointError: it cannot be read, or was trained on latents of another encoder.
    """
    options.head.check_encoder(model.latent_config.encoder_id)
