"""Bounds on the likelihood of spans: the ELBO and the importance-weighted bound (Burda et al. 2016, IWAE).

With z ~ q(z | x) = N(mean, I), as the model was trained, and the prior p(z) = N(0, I), a sample's log weight is

    log w = log p(x | z) + log p(z) - log q(z | x)

and `log p(x) >= E[log mean_k w_k] >= E[log w]`. The signs matter: AdaVAE's `compute_loss` subtracts the prior and adds
the posterior, which turns the sum into one that bounds nothing and looks better than the truth by twice the KL
divergence.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from steer.evaluation.decoding import Ids, Progress, nlls
from steer.models.latent_model import LatentModel
from steer.models.likelihood import MAX_LOGITS


def log_weights(log_likelihood: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """`log p(x | z) + log p(z) - log q(z | x)` for samples `z = mean + noise`, in float64.

    Args:
        log_likelihood: `[K, B]`, log p(x | z) of each sample.
        mean: `[B, z_dim]`, of the posterior, whose variance is 1.
        noise: `[K, B, z_dim]`, standard normal.

    Returns:
        `[K, B]`.
    """
    mean, noise = mean.double(), noise.double()
    # The two densities have the same constant, which cancels.
    log_prior = -0.5 * (mean + noise).pow(2).sum(-1)
    log_posterior = -0.5 * noise.pow(2).sum(-1)
    return log_likelihood.double() + log_prior - log_posterior


def importance_bound(weights: Tensor) -> Tensor:
    """`log mean_k w_k` `[B]` of log weights `[K, B]`: a lower bound of log p(x) in expectation, tighter with more k."""
    return weights.logsumexp(0) - math.log(len(weights))


@torch.no_grad()
def bound_figures(
    model: LatentModel, spans: Sequence[Ids], *, samples: int = 32, seed: int = 0, progress: Progress | None = None
) -> dict[str, float]:
    """Bounds on the NLL of spans without context, nats per token.

    Where latents hold far more nats than the text has (the KL divergence is kept small by a light hand only), both
    bounds lie far above the base's own NLL: the latents are codes to write from, and the prior is no model of text.

    Args:
        model: a `LatentModel`; spans are written by its router.
        spans: unseen token rows of exactly S tokens each.
        samples: K, of each span's latent.
        seed: of the samples.

    Returns:
        `spans`, `samples`; `elbo` and `importance`, upper bounds on the NLL from the two bounds above (`importance` is
        never above `elbo`); `noisy_nll`, from sampled latents, and `kl`, whose sum the ELBO is up to the samples; and
        `base_nll`, of the bare base without a latent.
    """
    mean = model.encode_ids(spans)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, *mean.shape, generator=generator)
    z, ids = (mean + noise).flatten(0, 1), torch.tensor(spans).repeat(samples, 1)
    width = model.latent_config.soft_tokens + model.span_tokens
    rows, found = max(1, MAX_LOGITS // (width * model.latent_config.base.vocab_size)), []
    for start in range(0, len(z), rows):
        target = ids[start : start + rows].to(model.device)
        logits = model.router_logits(target[:, :0], z[start : start + rows], target)[:, -target.shape[1] - 1 : -1]
        nll = functional.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none")
        found.append(nll.view_as(target).double().sum(1).cpu())
        if progress:
            progress("likelihood", min(len(z), start + rows), len(z))
    log_likelihood = -torch.cat(found).view(samples, len(spans))
    weights, size = log_weights(log_likelihood, mean, noise), model.span_tokens
    return {
        "spans": len(spans),
        "samples": samples,
        "elbo": -float(weights.mean()) / size,
        "importance": -float(importance_bound(weights).mean()) / size,
        "noisy_nll": -float(log_likelihood.mean()) / size,
        "kl": float(0.5 * mean.double().pow(2).sum(1).mean()) / size,
        "base_nll": float(nlls(model, [()] * len(spans), spans).mean()),
    }
