"""One calling convention for everything that writes: a step goes from token ids to the logits of what comes next.

Guidance takes steps and returns a step, so the loop over tokens (`steer.writing.span_loop`) never learns of it.
Source of the pattern: `make_cond_model_fn` in crowsonkb/k-diffusion.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.latents.pull import describe, per_row

# Called with None first, it gives the logits `[B, V]` of the first token; then it appends token ids `[B]` and gives the
# logits of the next one.
Step = Callable[[Tensor | None], Tensor]


def classifier_free_guidance(null_logits: Tensor, cond_logits: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance on logits, `null + scale * (cond - null)` (Ho and Salimans, 2022).

    Scale 1 gives `cond_logits` and scale 0 gives `null_logits`, bit for bit. Mask tokens out after this, not before:
    the difference of two infinities is NaN.

    Args:
        null_logits: float `[B, V]`, without the condition.
        cond_logits: float `[B, V]`, with it.
        scale: a number, or `[B]` or `[B, 1]` for one per row. Above 1 it exaggerates the condition.

    Raises:
        GuidanceError: if the two shapes differ.
    """
    if null_logits.shape != cond_logits.shape:
        raise GuidanceError(
            f"both arms need one shape; got null {describe(null_logits)} and cond {describe(cond_logits)}"
        )
    if not isinstance(scale, Tensor):
        if scale in (0, 1):
            return cond_logits if scale == 1 else null_logits
        return null_logits + scale * (cond_logits - null_logits)
    rows = per_row(scale, cond_logits)
    guided = null_logits + rows * (cond_logits - null_logits)
    return torch.where(rows == 1, cond_logits, torch.where(rows == 0, null_logits, guided))


def guided(step: Step, scale: Tensor | float, null: Step | None = None) -> Step:
    """A step under classifier-free guidance.

    Args:
        step: with the condition.
        scale: of the guidance, a number or `[B]`; see `classifier_free_guidance`.
        null: without the condition. None where `step` runs both in one batch: it takes ids `[2 * B]`, and the second
            half of its rows has no condition.
    """

    def both(ids: Tensor | None) -> tuple[Tensor, Tensor]:
        if null is not None:
            return step(ids), null(ids)
        logits = step(None if ids is None else ids.repeat(2))
        rows = len(logits) // 2
        return logits[:rows], logits[rows:]

    def guided_step(ids: Tensor | None) -> Tensor:
        conditional, unconditional = both(ids)
        return classifier_free_guidance(unconditional.float(), conditional.float(), scale)

    return guided_step
