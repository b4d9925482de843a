"""The prior stage: read states of stories once, then train a small head that draws the next latent.

```
plan.json               what is encoded, so that a folder is not continued with something else
latents/NNNNN.safetensors   states and latents of 200 stories each; kept, so that a stopped stage goes on
curve.jsonl             loss in training
model/                  the model with its head
done.json               figures on unseen stories
```
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steer.data.shards import PART, encode_in_parts
from steer.errors import CorpusError, TrainingError
from steer.evaluation.prior import prior_figures
from steer.heads.prior import PriorHead, principal_axes
from steer.models.latent_model import LatentModel
from steer.training.heads.prior_data import Continuations, encode_continuations, join_continuations
from steer.training.heads.stage import train_head
from steer.training.recipe import PriorRecipe

logger = logging.getLogger(__name__)

HELD_OUT = 0.05  # share of the stories on which the head is checked in training
CHECKS = 20  # of the held-out stories; the head of the best one is kept


def train_prior(
    model_folder: str | Path,
    recipe: PriorRecipe,
    stories: Sequence[str],
    unseen: Sequence[str],
    stage: Path,
    *,
    weights: np.ndarray | None = None,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Train a draft head for a model, or go on, or do nothing if done.

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
        CorpusError: no stories, or too few that are long enough.
        TrainingError: `stage` was begun with another model, recipe or text, or the loss became NaN.
    """

    def fit(model: LatentModel, texts: list[str]) -> tuple[PriorHead, dict[str, Any]]:
        def encode(part: Sequence[str], first: int) -> dict[str, Tensor]:
            return encode_continuations(model, part, seed=seed, first=first, spans=recipe.spans)

        encoder_id = model.latent_config.encoder_id
        plan = {"encoder_id": encoder_id, "seed": seed, "spans": recipe.spans}
        found = join_continuations(encode_in_parts(texts, encode, stage, plan, size=PART))
        head, losses = fit_prior(found, recipe, encoder_id, seed=seed, stage=stage)
        return head, {**losses, "spans": len(found.story)}

    return train_head(
        "prior",
        "draft head",
        model_folder,
        stories,
        stage,
        settings=recipe.model_dump(),
        fit=fit,
        measure=lambda model: prior_figures(model, unseen, seed=seed),
        count=recipe.stories,
        weights=weights,
        seed=seed,
        **options,
    )


def fit_prior(
    found: Continuations, recipe: PriorRecipe, encoder_id: str, *, seed: int = 0, stage: Path | None = None
) -> tuple[PriorHead, dict[str, float]]:
    """Train a head by the likelihood of what follows; kept is the head that found the held-out stories likeliest.

    Args:
        found: states and latents; the last twentieth of the stories is held out.
        recipe: steps, rates, noise.
        encoder_id: of the encoder that gave the latents.
        seed: of start values, noise and batches.
        stage: where `curve.jsonl` goes.

    Returns:
        The head, frozen and in evaluation mode, and `loss`, `held_out_loss` (nats per number of a standardised
        latent).

    Raises:
        CorpusError: too few stories to hold some out.
        TrainingError: the loss became NaN.
    """
    last = int(found.story.max(initial=-1)) + 1
    border = int(np.searchsorted(found.story, last - max(1, round(last * HELD_OUT))))
    if border < 2 or border == len(found.story):
        raise CorpusError("too few stories of two spans to train a draft head on; give more or longer text")
    train, held_out = found.rows(slice(0, border)), found.rows(slice(border, None))
    held = principal_axes(train.latents)[0].clamp_min(0).cumsum(0)
    axes = min(len(held), int((held < recipe.variance * held[-1]).sum()) + 1)
    config = recipe.config(encoder_id, train.states.shape[1], train.latents.shape[1], axes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = PriorHead(config, dropout=recipe.dropout)
        head.fit_scales(train.states, train.latents)
        losses = _descend(head, train, held_out, recipe, np.random.default_rng((seed, 3)), stage)
    return head.eval().requires_grad_(False), losses


def _descend(
    head: PriorHead,
    train: Continuations,
    held_out: Continuations,
    recipe: PriorRecipe,
    rng: np.random.Generator,
    stage: Path | None,
) -> dict[str, float]:
    """AdamW with a linear decay over the last 70 % of the steps; leaves the best weights in the head."""
    z, z_held_out = head.standardize(train.latents), head.standardize(held_out.latents)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    rates = [min(1.0, (s + 1) / 50, (recipe.steps - s) / (0.7 * recipe.steps)) for s in range(recipe.steps + 1)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, recipe.steps)])
    every = max(1, recipe.steps // CHECKS)
    best: tuple[float, dict[str, Tensor]] | None = None
    recent: list[float] = []
    mean = float("nan")
    for step in range(recipe.steps):
        rows = torch.from_numpy(rng.integers(0, len(z), recipe.batch_size))
        states = train.states[rows]
        states = states + recipe.noise * head.state_std * torch.randn(states.shape)
        loss = head.nll(states, z[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(float(loss.detach()))
        if not np.isfinite(recent[-1]):
            raise TrainingError(f"the draft head's loss became {recent[-1]} at step {step}; lower its learning_rate")
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            mean = float(np.mean(recent))
            recent.clear()
            check = _check(head, held_out.states, z_held_out)
            if best is None or check < best[0]:
                best = check, {name: tensor.clone() for name, tensor in head.state_dict().items()}
            if stage is not None:
                record = {"step": step + 1, "loss": round(mean, 6), "held_out_loss": round(check, 6)}
                with (stage / "curve.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
    assert best is not None
    head.load_state_dict(best[1])
    return {"loss": mean, "held_out_loss": best[0]}


@torch.no_grad()
def _check(head: PriorHead, states: Tensor, z: Tensor) -> float:
    """Mean `nll` without dropout."""
    head.eval()
    found = float(head.nll(states, z).mean())
    head.train()
    return found
