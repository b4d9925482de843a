"""The start of a model with a state encoder: its principal axes, and the way back to soft tokens by regression.

Nothing here is trained by gradients. From the first step on soft tokens lie where embeddings lie, and each tells about
its part of the span, so that the router learns to read them at once.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steer.data.corpus import TokenCorpus
from steer.errors import TrainingError
from steer.heads.bottleneck import LatentHead
from steer.heads.prior import principal_axes
from steer.heads.stored import load_head, read_tensors
from steer.models.checkpoint import STATES
from steer.models.latent_model import LatentModel
from steer.models.state_encoder import StateEncoder
from steer.training.recipe import StateEncoderRecipe

logger = logging.getLogger(__name__)

BATCH = 64
RIDGE = 0.003  # penalty of the regression, in units of the mean square of a latent's numbers, which is 1


def start_state_encoder(
    model: LatentModel, stories: TokenCorpus, settings: StateEncoderRecipe, folder: Path, *, seed: int
) -> None:
    """Fit a model's state encoder and set its head, or take over what an earlier call left in the folder.

    Args:
        model: with a state encoder; is changed.
        stories: training stories, tokenised.
        settings: how it is fitted.
        folder: of the stage; `encoder.safetensors` is kept there.
        seed: of the spans drawn.

    Raises:
        TrainingError: the stories hold too few spans for so many axes.
        UnsupportedBase: the base has too few layers.
    """
    encoder = model.state_encoder
    assert encoder is not None
    kept = folder / STATES
    if kept.is_file():
        load_head(encoder, read_tensors(kept), kept)
    spans = draw_spans(stories, model.span_tokens, settings.spans, seed)
    count = np.bincount(np.asarray(stories.tokens), minlength=len(encoder.token_weight))
    with torch.no_grad(), model.running(None) as base:
        if not kept.is_file():
            share = torch.from_numpy(count / count.sum()).float()
            encoder.token_weight.copy_(settings.rarity / (settings.rarity + share))
        parts = [encoder.part_means(base, ids, torch.ones_like(ids)) for ids in spans.to(model.device).split(BATCH)]
        embedding, layer = (torch.cat(kind).flatten(0, 1) for kind in zip(*parts, strict=True))
        if not kept.is_file():
            for name, means in (("embedding", embedding), ("layer", layer)):
                mean, axes, told = scaled_axes(means, len(getattr(encoder, f"{name}_axes")), settings.spread)
                getattr(encoder, f"{name}_mean").copy_(mean)
                getattr(encoder, f"{name}_axes").copy_(axes)
                logger.info("state encoder: %d axes of %s hold %.0f %% of its variance", len(axes), name, 100 * told)
            folder.mkdir(parents=True, exist_ok=True)
            encoder.save(kept)
        table = base.get_input_embeddings().weight
        regress_soft_tokens(model.head, encoder, embedding, layer, table)


def draw_spans(stories: TokenCorpus, size: int, number: int, seed: int) -> Tensor:
    """Whole spans of stories, in the order of a seed, `[n, size]` int64, n at most `number`."""
    generator = np.random.default_rng((seed, 17))

    def found() -> Iterator[np.ndarray]:
        for story in generator.permutation(len(stories)):
            first, end = int(stories.offsets[story]), int(stories.offsets[story + 1])
            for start in range(first + int(generator.integers(0, size)), end - size, size):
                yield stories.tokens[start : start + size].astype(np.int64)

    rows = [row for row, _ in zip(found(), range(number), strict=False)]
    if len(rows) < 2:
        raise TrainingError(
            f"the stories hold {len(rows)} spans of {size} tokens, too few for a state encoder: add text"
        )
    return torch.from_numpy(np.stack(rows))


def scaled_axes(rows: Tensor, axes: int, spread: float) -> tuple[Tensor, Tensor, float]:
    """Principal axes, scaled so that the numbers along them have a mean square of 1.

    Args:
        rows: `[n, d]`.
        axes: how many.
        spread: each is divided by this power of its standard deviation: 0 keeps their proportions, 1 makes them alike.

    Returns:
        The mean `[d]`, the scaled axes `[axes, d]`, and the share of the variance that they hold.

    Raises:
        TrainingError: there are fewer rows or dimensions than axes.
    """
    if axes >= min(rows.shape):
        raise TrainingError(f"{axes} axes were asked of {len(rows)} parts of width {rows.shape[1]}; give more spans")
    variances, directions = principal_axes(rows)
    deviation = (variances[:axes] * (len(rows) - 1) / len(rows)).sqrt()
    divisor = deviation**spread
    divisor = divisor * (deviation / divisor).pow(2).mean().sqrt()
    told = variances[:axes].sum() / variances.sum()
    mean = rows.double().mean(0)
    return mean.float(), (directions[:, :axes].T / divisor[:, None]).float(), float(told)


def regress_soft_tokens(
    head: LatentHead, encoder: StateEncoder, embedding: Tensor, layer: Tensor, table: Tensor
) -> None:
    """Set a head's soft tokens to the ridge regression of each part's mean embedding on the part's own numbers.

    The last soft tokens stand for the parts, in order, at the size of embeddings; those before them carry no latent and
    begin as the token that documents begin with: a fence for the first layers. The null latent begins as their bias.

    Args:
        head: is changed.
        encoder: fitted.
        embedding, layer: part means `[n, d]`, see `StateEncoder.part_means`.
        table: embeddings `[V, d]` of the base.
    """
    parts, width = encoder.config.parts, encoder.config.part_dim
    z = encoder.project(embedding[:, None], layer[:, None])
    centre = embedding.mean(0)
    gram = z.T @ z + RIDGE * len(z) * torch.eye(width, device=z.device)
    slope = torch.linalg.solve(gram, z.T @ (embedding - centre))
    # At the root mean square of the table, at which the base expects what it reads.
    rms = table.float().pow(2).mean().sqrt()
    scale = rms * table.shape[1] ** 0.5 / (z @ slope + centre).norm(dim=1).mean()
    weight = head.w_d.weight.new_zeros(head.soft_tokens, head.hidden_size, parts, width)
    bias = table[encoder.begin].float().expand(head.soft_tokens, -1).clone()
    for part in range(parts):
        weight[head.soft_tokens - parts + part, :, part] = scale * slope.T
    bias[head.soft_tokens - parts :] = scale * centre
    head.w_d.weight.copy_(weight.flatten(2).flatten(0, 1))
    head.w_d.bias.copy_(bias.flatten())
    if head.null is not None:
        head.null.copy_(bias)
