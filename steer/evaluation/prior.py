"""How good a draft head is, on stories that it has not seen."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from steer.errors import CorpusError
from steer.evaluation.continuations import Row, cut_row, encode_continuations, join_continuations
from steer.evaluation.decoding import Progress, read_in_parts
from steer.models.latent_model import LatentModel
from steer.noise import RowNoise, derive_seed
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import open_writer

WRITTEN = 100  # places at which a draft is written too, for comparison
TEMPERATURE = 0.7


def prior_figures(
    model: LatentModel,
    stories: Sequence[str],
    *,
    limit: int = 300,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How well a model's draft head foretells the next latent, on unseen stories.

    Args:
        model: a `LatentModel` with a draft head.
        stories: text that it was not trained on.
        limit: stories used, drawn at random.
        seed: of stories, cuts and noise.

    Returns:
        `nll` and, for comparison, `nll_marginal`: nats per number of the true next latent, under the head and under
        the Gaussian with mean and covariance of the training latents, both in standardised principal axes.
        `cosine`: of the true next latent with the head's `mean`, with a latent drawn from what it holds possible at
        temperature 0.7 (`drawn`), with a `written` draft at that temperature, and with the mean of all latents
        (`nothing`). `written` is measured at one place in each of 100 stories, the others at all `spans`.

    Raises:
        CorpusError: no stories, or none of two spans.
    """
    read = partial(encode_continuations, model, seed=seed)
    texts, parts = read_in_parts(stories, read, limit=limit, seed=seed, what="drafts", progress=progress)
    found = join_continuations(parts)
    if not len(found.story):
        raise CorpusError(f"no story has two spans of {model.span_tokens} tokens; give longer text")
    assert model.prior is not None
    head, z = model.prior, head_latents(model, found.latents)
    noise = RowNoise(tuple(derive_seed(seed, "figures", i) for i in range(len(found.story))))
    states = found.states.to(model.device)

    def nearness(drafts: Tensor) -> float:
        return float(cosine_similarity(drafts.cpu(), found.latents).mean())

    with torch.no_grad():
        nll = float(head.nll(states, z).mean())
    return {
        "spans": len(found.story),
        "nll": nll,
        "nll_marginal": float(0.5 * (z**2).mean() + 0.5 * math.log(2 * math.pi)),
        "cosine": {
            "mean": nearness(head.expect(states)),
            "drawn": nearness(head.sample(states, noise, 0, temperature=TEMPERATURE, spread=1)),
            "written": written_nearness(model, texts, seed=seed),
            "nothing": nearness(head.mean.float()[None].expand(len(found.story), -1)),
        },
    }


def head_latents(model: LatentModel, latents: Tensor) -> Tensor:
    """Latents `[n, z_dim]` as the model's draft head has them, see `PriorHead.standardize`."""
    assert model.prior is not None
    return model.prior.standardize(latents.to(model.device))


@torch.no_grad()
def written_nearness(model: LatentModel, stories: Sequence[str], *, seed: int = 0, count: int = WRITTEN) -> float:
    """Mean cosine of drafts by writing with the latents of what really follows, at one place per story.

    Args:
        stories: texts.
        seed: of the places and of the drafts.
        count: stories, at most.
    """
    rows: list[Row] = []
    begin = model.layout.begin(model.tokenizer)
    for number, story in enumerate(stories):
        ids = np.array(model.to_ids(story), np.int64)
        rng = np.random.default_rng((seed, number))
        row = cut_row(ids, model.span_tokens, rng, spans=1, longest=model.latent_config.max_context, begin=begin)
        if row is not None and len(rows) < count:
            rows.append(row)
    drafts = []
    for at in range(0, len(rows), 25):
        writer = open_writer(
            model,
            [row.context.tolist() for row in rows[at : at + 25]],
            seeds=[derive_seed(seed, "figures", at + i) for i in range(len(rows[at : at + 25]))],
            spans=1,
            sampling=SamplingConfig(temperature=TEMPERATURE),
        )
        drafts.append(writer.draft())
    true = model.encode_ids([row.spans[0].tolist() for row in rows])
    return float(cosine_similarity(torch.cat(drafts), true).mean())
