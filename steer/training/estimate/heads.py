"""What the stages of the heads will take: encoding stories is nearly all of it."""

from pathlib import Path
from typing import Any

import torch

from steer.models.config import LatentConfig
from steer.models.latent_model import FUSE_LIMIT
from steer.training.estimate.meta import hollow_model
from steer.training.estimate.report import Estimate, base_count, finish, trained_count
from steer.training.recipe import PriorRecipe, ReachRecipe


def estimate_reach(
    reach: ReachRecipe, latent: LatentConfig, config: Any, out: Path, device: torch.device, *, rank: int
) -> Estimate:
    """The reach stage.

    Args:
        reach: settings.
        latent: of the model.
        config: of its base.
        out: where it will be written; need not exist.
        device: where it will run.
        rank: of the model's adapters.
    """
    from steer.heads.reach import ReachHead

    head = sum(p.numel() for p in ReachHead(reach.config("", latent.z_dim)).parameters())
    return _estimate("reach", head, reach, latent.z_dim, latent, config, out, device, rank)


def estimate_prior(
    prior: PriorRecipe, latent: LatentConfig, config: Any, out: Path, device: torch.device, *, rank: int
) -> Estimate:
    """The prior stage; the arguments are those of `estimate_reach`.

    The head tells fewer axes than `z_dim` where the latents vary along fewer, so it is at most as large as counted.
    """
    from steer.heads.prior import PriorHead

    state = config.get_text_config().hidden_size + latent.z_dim
    head = sum(p.numel() for p in PriorHead(prior.config("", state, latent.z_dim, latent.z_dim)).parameters())
    return _estimate("prior", head, prior, state + latent.z_dim, latent, config, out, device, rank)


def _estimate(
    stage: str,
    head: int,
    recipe: ReachRecipe | PriorRecipe,
    kept: int,
    latent: LatentConfig,
    config: Any,
    out: Path,
    device: torch.device,
    rank: int,
) -> Estimate:
    """`head` parameters, `kept` numbers of each passage."""
    sizes: dict[str, Any] = {"rank": rank, "z_dim": latent.z_dim, "soft_tokens": latent.soft_tokens}
    model = hollow_model(config, span_tokens=latent.span_tokens, layout=latent.layout, **sizes)
    count, adapters = base_count(model), trained_count(model)
    size = 4 if device.type == "cpu" else 2  # as `LatentModel.from_pretrained` loads it
    fused = count * size if count * size <= FUSE_LIMIT else 0
    passages = recipe.stories * recipe.spans
    text = config.get_text_config()
    memory = {
        "base weights": count * size + fused,
        "adapters": adapters * size,
        "head, gradients, optimizer": 16 * head,
        "latents": 4 * passages * kept,
        # A batch of 64 passages (`LatentModel.encode`), of which nothing is kept for a backward pass.
        "activations": 64 * latent.span_tokens * size * 12 * text.hidden_size,
    }
    disk = {"latents": 2 * passages * kept, "model": adapters * size}
    return finish(Estimate(stage, str(device), count, head, recipe.steps, 0, 0, memory, None, disk, 0), out, device)
