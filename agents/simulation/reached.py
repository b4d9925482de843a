"""When a goal counts as reached: what is measured of each turn, and the thresholds that it is compared with.

A turn is near a goal by the cosine of their latents; where the model has a calibrated reach head, that must find the
goal told as well.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from agents.characters.goals import GoalBook
from agents.characters.planner import DECIMALS
from agents.log.events import OpeningEvent, TurnEvent
from agents.scenarios.schema import Character, Scenario
from steer.models.latent_model import LatentModel
from steer.sentences import split_sentences

DEFAULT_SIMILARITY = 0.6  # of models that were not calibrated


def thresholds(scenario: Scenario, model: LatentModel) -> tuple[float, float | None]:
    """The cosine, and the probability of having been told (None: not asked), from which goals count as reached.

    That is the scenario's similarity, or else what was calibrated for the model: the reach head's thresholds, or its
    similarity alone.
    """
    reach = None if model.reach is None else model.reach.config
    if scenario.planner.reached is None and reach is not None and reach.told_chance is not None:
        similarity = reach.told_similarity if reach.pulled_similarity is None else reach.pulled_similarity
        return similarity or 0.0, reach.told_chance
    return scenario.planner.reached or model.latent_config.reached_similarity or DEFAULT_SIMILARITY, None


def is_met(key: str, turn: TurnEvent, opening: OpeningEvent) -> bool:
    """Whether a turn tells a goal (`character/goal`): it is near enough, and likely enough to have been told."""
    similarity = turn.similarities.get(key)
    if similarity is None or similarity < opening.threshold:
        return False
    return opening.told is None or (turn.told.get(key) or 0.0) >= opening.told


def measure(
    scenario: Scenario, model: LatentModel, book: GoalBook, character: Character, text: str, ids: list[int]
) -> dict[str, float | None]:
    """How near a turn came to each goal of all characters.

    Args:
        scenario: in prose the name that starts the paragraph belongs to its first sentence.
        model: encodes.
        book: the goals' latents.
        character: whose turn it is.
        text: what was kept of the turn.
        ids: the same as tokens.

    Returns:
        For each `character/goal` the greatest cosine of its latent with those of the turn's sentences (cut to a span)
        and of its last span; None where nothing was kept.
    """
    sentences = split_sentences((character.name if scenario.format == "prose" else "") + text)
    # The encoder takes no NUL, which a model may write.
    sentences = [s for s in (sentence.replace("\0", " ").strip() for sentence in sentences) if s]
    if not ids or not sentences:
        return {key: None for key in book.vectors}
    latents = torch.cat([model.encode(sentences, long="truncate"), model.encode_ids([ids[-model.span_tokens :]])])
    units = _unit(latents.numpy())
    return {key: round(float((units @ _unit(vector)).max()), DECIMALS) for key, vector in book.vectors.items()}


def measure_told(model: LatentModel, book: GoalBook, ids: list[int]) -> dict[str, float | None]:
    """How likely each goal of all characters was told in a turn, by the model's reach head.

    The head reads whole spans, so the turn is read in windows of a span that overlap by half, and the last ends with
    the turn.

    Args:
        model: encodes; with a reach head.
        book: the goals' latents.
        ids: what was kept of the turn.

    Returns:
        For each `character/goal` the greatest probability of all windows; None where nothing was kept.
    """
    if not ids or model.reach is None:
        return {key: None for key in book.vectors}
    size = model.span_tokens
    starts = [*range(0, max(len(ids) - size, 0), max(size // 2, 1)), max(len(ids) - size, 0)]
    windows = model.encode_ids([ids[start : start + size] for start in starts])
    found: dict[str, float | None] = {}
    for key, vector in book.vectors.items():
        chances = model.reach.told(windows, torch.from_numpy(vector.copy())[None])
        found[key] = round(float(chances.max()), DECIMALS)
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
