"""The weight of the KL term, beta, which rises in training: an encoder that is pressed at once never says anything."""

import math

from steer.training.recipe import LatentRecipe, MiniHFRecipe

LEAST = 0.02  # share of beta before it rises, in the interleaved layout


def beta_at(recipe: LatentRecipe | MiniHFRecipe, step: int) -> float:
    """The weight of the KL term at a step of the stage that trains the encoder.

    Interleaved: 2 % of `beta` at first, rising linearly between the shares `beta_start` and `beta_full` of the steps.
    MiniHF: `beta * sin^2(pi / 2 * min(step / beta_steps, 1))`.

    Args:
        recipe: of the autoencoder.
        step: counted from 0.
    """
    if isinstance(recipe, MiniHFRecipe):
        return recipe.beta * math.sin(math.pi / 2 * min(step / recipe.beta_steps, 1.0)) ** 2
    rise = (step / recipe.steps - recipe.beta_start) / max(recipe.beta_full - recipe.beta_start, 1e-9)
    return recipe.beta * min(1.0, max(LEAST, rise))
