"""The reach stage: encode stories once, then train a small head on pairs of their passages.

```
plan.json               what is encoded, so that a folder is not continued with something else
latents/NNNNN.safetensors   encoded passages of 200 stories each; kept, so that a stopped stage goes on
curve.jsonl             loss on training and held-out pairs
model/                  the model with its head
done.json               figures on unseen stories
```
Encoding takes most of the time, and is what resuming saves; the head itself trains in a minute or two.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steer.data.shards import PART, encode_in_parts
from steer.errors import TrainingError
from steer.evaluation.reach import reach_figures
from steer.heads.reach import ReachConfig, ReachHead
from steer.models.latent_model import LatentModel
from steer.training.heads.arrival import calibrate_told, middling_telling
from steer.training.heads.reach_data import Passages, encode_passages, find_rivals, join_passages
from steer.training.heads.reach_pairs import Pairs, PairSampler, bucket_of
from steer.training.heads.stage import train_head
from steer.training.recipe import ReachRecipe

logger = logging.getLogger(__name__)

HELD_OUT = 0.05  # share of the encoded stories on which the temperature is fitted


def train_reach(
    model_folder: str | Path,
    recipe: ReachRecipe,
    stories: Sequence[str],
    unseen: Sequence[str],
    stage: Path,
    *,
    weights: np.ndarray | None = None,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Train a reach head for a model, or go on, or do nothing if done.

    Args:
        model_folder: a model folder, the packaged model's name or a hub id.
        recipe: settings.
        stories: training text.
        unseen: stories for the figures; not among `stories`.
        stage: working folder; keep it to resume.
        weights: `[n]` how likely each story is chosen, where the recipe takes fewer.
        seed: of all choices.
        **options: of `LatentModel.from_pretrained`.

    Returns:
        `stage/model`: the model with its head.

    Raises:
        CorpusError: no stories, or none that are long enough.
        TrainingError: `stage` was begun with another model, recipe or text, or the loss became NaN.
    """

    def fit(model: LatentModel, texts: list[str]) -> tuple[ReachHead, dict[str, Any]]:
        passages = encode_stories(model, texts, recipe, stage, seed=seed)
        config = recipe.config(model.latent_config.encoder_id, model.latent_config.z_dim)
        head, losses = fit_reach(passages, recipe, config, seed=seed, stage=stage)
        return head, {**losses, "passages": len(passages.story), "temperature": head.config.temperature}

    return train_head(
        "reach",
        "reach head",
        model_folder,
        stories,
        stage,
        settings=recipe.model_dump(),
        fit=fit,
        measure=lambda model: reach_figures(model, unseen, seed=seed),
        count=recipe.stories,
        weights=weights,
        seed=seed,
        **options,
    )


def encode_stories(model: Any, texts: Sequence[str], recipe: ReachRecipe, stage: Path, *, seed: int) -> Passages:
    """Encode stories in parts that are kept under `stage`; what is there is not encoded again.

    Raises:
        TrainingError: the folder was begun with something else.
    """
    plan = {"encoder_id": model.latent_config.encoder_id, "seed": seed, "spans": recipe.spans}

    def encode(part: Sequence[str], first: int) -> dict[str, Tensor]:
        return encode_passages(model, part, seed=seed, first=first, spans=recipe.spans)

    parts = encode_in_parts(texts, encode, stage, plan, size=PART)
    return join_passages(parts, find_rivals(texts, seed=seed), model.span_tokens)


def fit_reach(
    passages: Passages, recipe: ReachRecipe, config: ReachConfig, *, seed: int = 0, stage: Path | None = None
) -> tuple[ReachHead, dict[str, float]]:
    """Train a head by cross-entropy over buckets, then fit its temperature on held-out stories.

    Args:
        passages: encoded stories; the last twentieth of them is held out.
        recipe: steps, rates, noise.
        config: of the head.
        seed: of start values, noise and pairs.
        stage: where `curve.jsonl` goes.

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
        head.mean.copy_(train.latents.mean(0))
        head.std.copy_(train.latents.std(0).clamp_min(1e-6))
        loss = _descend(head, sampler, recipe, np.random.default_rng((seed, 3)), stage)
    head.eval().requires_grad_(False)
    pairs = check.draw(20_000, np.random.default_rng((seed, 4)))
    logits = torch.cat(
        [_logits(head, held_out, pairs.take(rows)) for rows in np.array_split(np.arange(len(pairs)), 20)]
    )
    labels = labels_of(pairs, config)
    head.config = config.model_copy(update={"temperature": fit_temperature(logits, labels)})
    calibrated = nn.functional.cross_entropy(logits / head.config.temperature, labels)
    if (thresholds := calibrate_told(head, held_out, seed=seed)) is not None:
        similarity, chance = thresholds
        middle = middling_telling(head, held_out, seed=seed)
        head.config = head.config.model_copy(
            update={"told_similarity": similarity, "told_chance": chance, "pulled_similarity": middle}
        )
    return head, {"loss": loss, "held_out_loss": float(calibrated)}


def _descend(
    head: ReachHead, sampler: PairSampler, recipe: ReachRecipe, rng: np.random.Generator, stage: Path | None
) -> float:
    """AdamW with a linear decay over the last 60 % of the steps. Returns the mean loss of the last records."""
    z = head.standardize(sampler.passages.latents)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    rates = [min(1.0, (s + 1) / 50, (recipe.steps - s) / (0.6 * recipe.steps)) for s in range(recipe.steps + 1)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, recipe.steps)])
    records: list[float] = []
    recent: list[float] = []
    batches: list[Pairs] = []
    for step in range(recipe.steps):
        if not batches:  # many at once, since choosing is slow for few
            drawn = sampler.draw(50 * recipe.batch_size, rng)
            batches = [drawn.take(rows) for rows in np.array_split(np.arange(len(drawn)), 50)]
        pairs = batches.pop()
        state, terminal = (
            z[rows] + recipe.noise * torch.randn(len(rows), z.shape[1]) for rows in (pairs.state, pairs.terminal)
        )
        loss = nn.functional.cross_entropy(head(state, terminal), labels_of(pairs, head.config))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(float(loss.detach()))
        if not np.isfinite(recent[-1]):
            raise TrainingError(f"the reach head's loss became {recent[-1]} at step {step}; lower its learning_rate")
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            records.append(float(np.mean(recent)))
            recent.clear()
            if stage is not None:
                with (stage / "curve.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step + 1, "loss": round(records[-1], 6)}) + "\n")
    return records[-1]


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
