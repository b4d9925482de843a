"""BigVAE's samplers as fixed mixes of latents; its schedule is `steer.latents.schedules.linear_bigvae`."""

import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.latents.rows import row_norm, with_norm
from steer.latents.schedules import linear_bigvae


def guide(z: Tensor, towards: Tensor) -> Tensor:
    """BigVAE's `guide`, towards a prompt or a task: 0.85 z + 0.15 towards, at the mean of the two norms.

    Shapes `[..., z]`, broadcast; in the first latent's dtype.

    Raises:
        GuidanceError: the widths differ.
    """
    return _blend((0.85, z), (0.15, towards))


def topic_sentence(z: Tensor, topic: Tensor, task: Tensor) -> Tensor:
    """BigVAE's `task` and `paragraph_topic`: 0.75 z + 0.10 topic + 0.15 task, at the mean of the three norms."""
    return _blend((0.75, z), (0.10, topic), (0.15, task))


def annealed_blends(
    draft: Tensor, terminal: Tensor, steps: int, *, step_size: float = 0.1, start: float = 0.05
) -> Tensor:
    """BigVAE's guidance annealing (MiniHF's `plan_2`) without the writing in between.

    At step k = 1 .. steps the result of the step before (at first the draft) is mixed with `w = start + step_size * k`
    of the terminal, and rescaled to the mean of the two norms that went in.

    Args:
        draft: float `[..., z]`.
        terminal: float `[..., z]`, broadcast to the draft.
        steps: number of blends, at least 1.
        step_size: growth of the weight per step. MiniHF's planner used 0.025.
        start: weight before the first step.

    Returns:
        `[steps, ..., z]`, in the draft's dtype.

    Raises:
        GuidanceError: if there is no step, a weight is outside [0, 1], or the widths differ.
    """
    blends: list[Tensor] = []
    for weight in linear_bigvae(steps, start=start, step_size=step_size).tolist():
        blends.append(_blend((1 - weight, blends[-1] if blends else draft), (weight, terminal)))
    return torch.stack(blends)


def _blend(*parts: tuple[float, Tensor]) -> Tensor:
    """Weighted sum at the plain mean of the norms that went in, in the first latent's dtype."""
    widths = {latent.shape[-1] for _, latent in parts}
    if len(widths) != 1:
        raise GuidanceError(f"latents of one width can be mixed; got widths {sorted(widths)}")
    rows = [(weight, latent.double()) for weight, latent in parts]
    mixed = sum((weight * latent for weight, latent in rows[1:]), rows[0][0] * rows[0][1])
    mean_norm = sum((row_norm(latent) for _, latent in rows[1:]), row_norm(rows[0][1])) / len(rows)
    return with_norm(mixed, mean_norm).to(parts[0][1].dtype)
