"""Memory: what a character witnessed and can no longer be read in the visible context, recalled as a latent.

Memories are a function of the events alone: the turns that the character heard, of which not all tokens are in the
context that the model is fed. (What still is there conditions the model as it is; a pull towards it would only repeat
it.) Two branches of a run have other events, so they have other memories; recalling changes nothing.

Each memory is scored as in Generative Agents (Park et al., 2023), by how much it has to do with the present, how recent
it is and how much it meant to the character:

    score = (1 + cosine(state, memory)) / 2 + 0.5 ** (age / half_life) + salience

where the age is in turns and the salience is the greatest similarity, if above 0, of that turn with one of the
character's goals, as the log has it. The best are averaged by their scores into one latent, which is mixed into the
drafts; no word of them enters the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from agents.log.events import Recalled
from steer.latents.mixing import task_vector
from steer.models.latent_model import LatentModel

DECIMALS = 6


@dataclass(frozen=True)
class Episode:
    """One turn as the log tells it.

    Attributes:
        turn: counted from 1.
        character: whose turn it was.
        start: place of its first token in the visible text.
        ids: its tokens, cue included.
        similarities: for every goal (`character/goal`), see `agents.log.events.TurnEvent`.
    """

    turn: int
    character: str
    start: int
    ids: tuple[int, ...]
    similarities: dict[str, float | None]

    def salience(self, character: str) -> float:
        """How much the turn meant to a character: how near it came to one of its goals, 0 at least."""
        own = (s for key, s in self.similarities.items() if key.partition("/")[0] == character and s is not None)
        return max([0.0, *own])


@dataclass(frozen=True, eq=False)
class Memory:
    """What was recalled: one latent, float32 `[z_dim]`, and what it is made of, best first."""

    latent: Tensor
    recalled: tuple[Recalled, ...]


@final
class Recollection:
    """Recalls episodes. Latents of episodes that it has met are kept, which changes no result.

    Args:
        model: encodes.
    """

    def __init__(self, model: LatentModel) -> None:
        self._model = model
        self._latents: dict[tuple[int, ...], Tensor] = {}

    def recall(
        self,
        episodes: Sequence[Episode],
        *,
        character: str,
        state: Tensor,
        turn: int,
        forgotten: int,
        hears: frozenset[str] | None = None,
        count: int = 3,
        half_life: float = 8.0,
    ) -> Memory | None:
        """Recall what matters now.

        Args:
            episodes: of the branch, in order.
            character: who remembers.
            state: float32 `[z_dim]`, latent of the present.
            turn: the present turn.
            forgotten: tokens at the start of the visible text that the model is not fed any more.
            hears: characters whose turns it witnesses besides its own; None: all.
            count: how many memories at most.
            half_life: in turns.

        Returns:
            None where there is nothing to recall.
        """
        known = [
            episode
            for episode in episodes
            if episode.ids
            and episode.start < forgotten
            and (hears is None or episode.character == character or episode.character in hears)
        ]
        if not known:
            return None
        latents = torch.stack([self._latent(episode.ids) for episode in known])
        cosines = cosine_similarity(latents.double(), state.double()[None], dim=1).tolist()
        scored = []
        for place, (episode, cosine) in enumerate(zip(known, cosines, strict=True)):
            recency = 0.5 ** ((turn - episode.turn) / half_life)
            salience = episode.salience(character)
            score = (1 + cosine) / 2 + recency + salience
            figures = {"similarity": cosine, "recency": recency, "salience": salience, "score": score}
            recalled = Recalled(turn=episode.turn, **{name: round(v, DECIMALS) for name, v in figures.items()})
            scored.append((score, place, recalled))
        best = sorted(scored, key=lambda item: (-item[0], item[1]))[:count]
        mean = task_vector(latents[[place for _, place, _ in best]], weights=[score for score, _, _ in best])
        return Memory(mean, tuple(recalled for _, _, recalled in best))

    def _latent(self, ids: tuple[int, ...]) -> Tensor:
        """Of an episode: the mean of its spans' latents, rescaled to their mean norm."""
        if ids not in self._latents:
            size = self._model.span_tokens
            # Each span alone: a latent must not depend on what it was computed with.
            rows = [self._model.encode_ids([ids[i : i + size]])[0] for i in range(0, len(ids), size)]
            self._latents[ids] = task_vector(torch.stack(rows))
        return self._latents[ids]
