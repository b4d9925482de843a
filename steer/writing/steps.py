"""One calling convention for everything that writes: a step goes from token ids to the logits of what comes next.

Guidance takes steps and returns a step, so the loop over tokens (`steer.writing.spans`) never learns of it.
Source of the pattern: `make_cond_model_fn` in crowsonkb/k-diffusion.
"""

from collections.abc import Callable

from torch import Tensor

from steer.latents.mixing import classifier_free_guidance

# Called with None first, it gives the logits `[B, V]` of the first token; then it appends token ids `[B]` and gives the
# logits of the next one.
Step = Callable[[Tensor | None], Tensor]


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
