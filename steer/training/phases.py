"""The steps of the autoencoder stage: what each trains, on what rows, by which loss.

In the interleaved layout there is one. In BigVAE's there are MiniHF's two: first encoder, decoder and heads learn to
rebuild spans; then the router learns to write from the latents of the encoder, which stays as it is. Training runs
them, and `--dry-run` counts them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from steer.models.adapters import DECODER, ENCODER, ROUTER
from steer.models.latent_model import LatentModel
from steer.training.objectives.interleaved import LatentObjective, SpanObjective
from steer.training.objectives.minihf import DecoderObjective, RouterObjective
from steer.training.recipe import LatentRecipe, Recipe, TrainRecipe


@dataclass(frozen=True)
class Phase:
    """A step of the stage.

    Attributes:
        name: of its folder below the run's and of its estimate; the last one's folder is the stage's own.
        train: settings of its optimisation.
        roles: adapters that it trains.
        with_head: whether the heads are trained too.
        objective: from a model and `compiled`, the module of its loss.
        seed: of the rows.
        span_tokens, spans, context: S, spans per row, tokens before them.
        positions: of a row, in passes of the base.
        partial_prob: see `SpanDataset`.
    """

    name: str
    train: TrainRecipe
    roles: Sequence[str]
    with_head: bool
    objective: Callable[..., LatentObjective]
    seed: int
    span_tokens: int
    spans: int
    context: int
    positions: int
    partial_prob: float = 0.0

    def prepare(self, model: LatentModel, *, compiled: bool = False) -> LatentObjective:
        """The loss of a model; gradients are on where the step trains, and nowhere else."""
        unfreeze(model, self.roles, head=self.with_head)
        return self.objective(model, compiled=compiled)

    def trial(self, objective: LatentObjective, device: torch.device | str = "cpu") -> Tensor:
        """The loss of a batch of made-up tokens, behind the longest context."""
        rows = self.train.batch_size
        context = torch.ones(rows, self.context, dtype=torch.long, device=device)
        spans = torch.ones(rows, self.spans, self.span_tokens, dtype=torch.long, device=device)
        return objective.trial(context, spans)


def phases(recipe: Recipe) -> list[Phase]:
    """The steps of a recipe's autoencoder stage, in their order."""
    latent, seed = recipe.autoencoder, recipe.seed
    size, longest = latent.span_tokens, max(latent.context_lengths)
    if isinstance(latent, LatentRecipe):
        names = ("context_lengths", "isolated_prob", "null_prob", "null_sequence_prob", "noise")
        objective = partial(SpanObjective, seed=seed, **{name: getattr(latent, name) for name in names})
        positions, own = longest + latent.spans * (latent.soft_tokens + 2 * size), (ROUTER,)
        own = own if latent.state_encoder is not None else (ENCODER, ROUTER)
        rows = (seed, size, latent.spans, longest, positions, latent.partial_prob)
        return [Phase("autoencoder", latent.train, own, True, objective, *rows)]
    shared = {"context_drop": latent.context_drop, "noise": latent.noise, "seed": seed}
    decoder = partial(DecoderObjective, **shared)
    router = partial(RouterObjective, context_lengths=latent.context_lengths, **shared)
    first = (seed, size, 1, size, 3 * size - 1)
    second = (seed + 1, size, 2, longest, longest + 3 * size)  # other rows than in the first step
    return [
        Phase("autoencoder/decoder", latent.train, (ENCODER, DECODER), True, decoder, *first),
        Phase("autoencoder/router", latent.router, (ROUTER,), False, router, *second),
    ]


def unfreeze(model: LatentModel, roles: Sequence[str], *, head: bool = True) -> int:
    """Switch the gradients of some adapters, and of the heads, on, and all others off.

    Returns:
        How many parameters are trained.
    """
    for name, parameter in model.peft.named_parameters():
        parameter.requires_grad_("lora_" in name and any(f".{role}." in name for role in roles))
    model.head.requires_grad_(head)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
