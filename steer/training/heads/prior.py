"""The prior stage: a small head that draws the next latent, trained by the likelihood of what follows in stories."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steer.errors import CorpusError
from steer.evaluation.continuations import Continuations, encode_continuations, join_continuations
from steer.evaluation.prior import prior_figures
from steer.heads.prior import PriorHead, principal_axes
from steer.models.latent_model import LatentModel
from steer.training.heads.fit import Descent, fit
from steer.training.heads.stage import HeadStage
from steer.training.recipe import PriorRecipe

HELD_OUT = 0.05  # share of the stories on which the head is checked in training
CHECKS = 20  # of the held-out stories; the head of the best one is kept


def fit_on_stories(
    model: LatentModel,
    texts: Sequence[str],
    parts: Sequence[dict[str, Tensor]],
    recipe: PriorRecipe,
    curve: Path,
    seed: int,
) -> tuple[PriorHead, dict[str, Any]]:
    """See `HeadStage.fit`."""
    found = join_continuations(parts)
    head, losses = fit_prior(found, recipe, model.latent_config.encoder_id, seed=seed, curve=curve)
    return head, {**losses, "spans": len(found.story)}


def fit_prior(
    found: Continuations, recipe: PriorRecipe, encoder_id: str, *, seed: int = 0, curve: Path | None = None
) -> tuple[PriorHead, dict[str, float]]:
    """Train a head by the likelihood of what follows; kept is the head that found the held-out stories likeliest.

    Args:
        found: states and latents; the last twentieth of the stories is held out.
        recipe: steps, rates, noise.
        encoder_id: of the encoder that gave the latents.
        seed: of start values, noise and batches.
        curve: file of records, see `fit`.

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
    descent = Descent(
        recipe.steps,
        recipe.learning_rate,
        recipe.weight_decay,
        warmup=50,
        decay=0.7,
        max_grad_norm=1.0,
        every=max(1, recipe.steps // CHECKS),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = PriorHead(config, dropout=recipe.dropout)
        head.fit_axes(train.states, train.latents)
        z, z_held_out = head.standardize(train.latents), head.standardize(held_out.latents)

        def loss(rows: Tensor) -> Tensor:
            states = train.states[rows]
            return head.nll(states + recipe.noise * head.state_std * torch.randn(states.shape), z[rows]).mean()

        def check() -> float:
            return float(head.nll(held_out.states, z_held_out).mean())

        batches = draw_rows(len(z), recipe.batch_size, np.random.default_rng((seed, 3)))
        losses = fit(head, loss, batches, descent, check=check, curve=curve)
    return head, losses


def draw_rows(count: int, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Rows `[size]` int64 below `count`, drawn with replacement, without end."""
    while True:
        yield torch.from_numpy(rng.integers(0, count, size))


def _sizes(recipe: PriorRecipe, z_dim: int, width: int) -> tuple[int, int]:
    # The head tells fewer axes than `z_dim` where the latents vary along fewer, so it is at most as large as counted.
    state = width + z_dim
    head = PriorHead(recipe.config("", state, z_dim, z_dim))
    return sum(p.numel() for p in head.parameters()), state + z_dim


PRIOR = HeadStage(
    name="prior",
    title="draft head",
    recipe=PriorRecipe,
    read=encode_continuations,
    fit=fit_on_stories,
    measure=lambda model, unseen, seed: prior_figures(model, unseen, seed=seed),
    sizes=_sizes,
)
