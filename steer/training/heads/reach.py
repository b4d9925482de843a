"""The reach stage: a small head, trained on pairs of passages of stories, and calibrated on others of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steer.data.passage_pairs import Pairs, PairSampler, bucket_of
from steer.data.passages import Passages, encode_passages, find_rivals, join_passages
from steer.evaluation.reach import reach_figures
from steer.heads.reach import ReachConfig, ReachHead
from steer.models.latent_model import LatentModel
from steer.training.heads.arrival import calibrate_told, middling_telling
from steer.training.heads.fit import Descent, fit
from steer.training.heads.stage import HeadStage
from steer.training.recipe import ReachRecipe

HELD_OUT = 0.05  # share of the encoded stories on which the temperature is fitted


def fit_on_stories(
    model: LatentModel,
    texts: Sequence[str],
    parts: Sequence[dict[str, Tensor]],
    recipe: ReachRecipe,
    curve: Path,
    seed: int,
) -> tuple[ReachHead, dict[str, Any]]:
    """See `HeadStage.fit`."""
    config = recipe.config(model.latent_config.encoder_id, model.latent_config.z_dim)
    passages = join_passages(parts, find_rivals(texts, seed=seed), model.span_tokens)
    head, losses = fit_reach(passages, recipe, config, seed=seed, curve=curve)
    return head, {**losses, "passages": len(passages.story), "temperature": head.config.temperature}


def fit_reach(
    passages: Passages, recipe: ReachRecipe, config: ReachConfig, *, seed: int = 0, curve: Path | None = None
) -> tuple[ReachHead, dict[str, float]]:
    """Train a head by cross-entropy over buckets, then fit its temperature on held-out stories.

    Args:
        passages: encoded stories; the last twentieth of them is held out.
        recipe: steps, rates, noise.
        config: of the head.
        seed: of start values, noise and pairs.
        curve: file of records, see `fit`.

    Returns:
        The head, frozen and in evaluation mode, and `loss`, `held_out_loss` (nats per pair, after calibration).

    Raises:
        CorpusError: too few stories to hold some out.
        TrainingError: the loss became NaN.
    """
    last = int(passages.story.max(initial=0)) + 1
    border = int(np.searchsorted(passages.story, last - max(1, round(last * HELD_OUT))))
    train, held_out = (part_of(passages, rows) for rows in (slice(0, border), slice(border, None)))
    sampler, check = PairSampler(train, config), PairSampler(held_out, config)
    far = sampler.inside.distance[sampler.inside.distance >= config.buckets[-1]]
    config = config.model_copy(update={"tail": float(far.mean()) if len(far) else config.buckets[-1] + 2.0})

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ReachHead(config, dropout=recipe.dropout)
        head.fit_scales(train.latents)
        z = head.standardize(train.latents)

        def loss(pairs: Pairs) -> Tensor:
            state, terminal = (
                z[rows] + recipe.noise * torch.randn(len(rows), z.shape[1]) for rows in (pairs.state, pairs.terminal)
            )
            return nn.functional.cross_entropy(head(state, terminal), labels_of(pairs, config))

        batches = draw_batches(sampler, recipe.batch_size, np.random.default_rng((seed, 3)))
        descent = Descent(
            recipe.steps, recipe.learning_rate, recipe.weight_decay, warmup=50, decay=0.6, max_grad_norm=1.0
        )
        losses = fit(head, loss, batches, descent, curve=curve)
    pairs = check.draw(20_000, np.random.default_rng((seed, 4)))
    logits = torch.cat(
        [_logits(head, held_out, pairs.take(rows)) for rows in np.array_split(np.arange(len(pairs)), 20)]
    )
    labels = labels_of(pairs, config)
    temperature = fit_temperature(logits, labels)
    head.config = config.model_copy(update={"temperature": temperature})
    if (thresholds := calibrate_told(head, held_out, seed=seed)) is not None:
        similarity, chance = thresholds
        middle = middling_telling(head, held_out, seed=seed)
        head.config = head.config.model_copy(
            update={"told_similarity": similarity, "told_chance": chance, "pulled_similarity": middle}
        )
    return head, {**losses, "held_out_loss": float(nn.functional.cross_entropy(logits / temperature, labels))}


def draw_batches(sampler: PairSampler, size: int, rng: np.random.Generator) -> Iterator[Pairs]:
    """Pairs without end, about `size` at a time; many are drawn at once, since choosing is slow for few."""
    while True:
        drawn = sampler.draw(50 * size, rng)
        yield from (drawn.take(rows) for rows in reversed(np.array_split(np.arange(len(drawn)), 50)))


def labels_of(pairs: Pairs, config: ReachConfig) -> Tensor:
    """Classes `[n]` int64 of pairs."""
    return torch.from_numpy(bucket_of(pairs.distance, config.buckets))


def part_of(passages: Passages, rows: slice) -> Passages:
    """Some rows of passages; rivals that are not among them are not drawn."""
    columns = {name: getattr(passages, name)[rows] for name in ("latents", "story", "begin", "end", "span")}
    return replace(passages, **columns)


@torch.no_grad()
def _logits(head: ReachHead, passages: Passages, pairs: Pairs) -> Tensor:
    return head(head.standardize(passages.latents[pairs.state]), head.standardize(passages.latents[pairs.terminal]))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017), between 0.05 and 20.

    Args:
        logits: `[n, classes]`.
        labels: `[n]` int64.
    """
    # The loss is convex in 1/T: a search by thirds closes in on its minimum.
    low, high = 0.05, 20.0
    for _ in range(60):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        first, second = (float(nn.functional.cross_entropy(logits.double() * scale, labels)) for scale in (one, two))
        low, high = (low, two) if first < second else (one, high)
    return round(2 / (low + high), 4)


def _sizes(recipe: ReachRecipe, z_dim: int, width: int) -> tuple[int, int]:
    head = ReachHead(recipe.config("", z_dim))
    return sum(p.numel() for p in head.parameters()), z_dim


REACH = HeadStage(
    name="reach",
    title="reach head",
    recipe=ReachRecipe,
    read=encode_passages,
    fit=fit_on_stories,
    measure=lambda model, unseen, seed: reach_figures(model, unseen, seed=seed),
    sizes=_sizes,
)
