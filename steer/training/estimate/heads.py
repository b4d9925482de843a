"""What the stages of the heads will take: encoding stories is nearly all of it."""

from pathlib import Path
from typing import Any

import torch

from steer.models.config import LatentConfig
from steer.models.latent_model import FUSE_LIMIT
from steer.training.estimate.meta import meta_model
from steer.training.estimate.report import Estimate, base_count, finish, trained_count
from steer.training.heads.stage import HeadStage
from steer.training.recipe import PriorRecipe, ReachRecipe


def estimate_head(
    kind: HeadStage,
    recipe: ReachRecipe | PriorRecipe,
    latent: LatentConfig,
    config: Any,
    out: Path,
    device: torch.device,
    *,
    rank: int,
) -> Estimate:
    """The stage of a head.

    Args:
        kind: which head.
        recipe: its settings.
        latent: of the model.
        config: of its base.
        out: where it will be written; need not exist.
        device: where it will run.
        rank: of the model's adapters.
    """
    width = config.get_text_config().hidden_size
    head, kept = kind.sizes(recipe, latent, width)
    sizes: dict[str, Any] = {"rank": rank, "z_dim": latent.z_dim, "soft_tokens": latent.soft_tokens}
    model = meta_model(config, span_tokens=latent.span_tokens, layout=latent.layout, **sizes)
    count, adapters = base_count(model), trained_count(model)
    size = 4 if device.type == "cpu" else 2  # as `LatentModel.from_pretrained` loads it
    fused = count * size if count * size <= FUSE_LIMIT else 0
    passages = recipe.stories * recipe.spans
    memory = {
        "base weights": count * size + fused,
        "adapters": adapters * size,
        "head, gradients, optimizer": 16 * head,
        "latents": 4 * passages * kept,
        # A batch of 64 passages (`LatentModel.encode`), of which nothing is kept for a backward pass.
        "activations": 64 * latent.span_tokens * size * 12 * width,
    }
    disk = {"latents": 2 * passages * kept, "model": adapters * size}
    found = Estimate(kind.name, str(device), count, head, recipe.steps, 0, 0, memory, None, disk, 0)
    return finish(found, out, device)
