"""Muon for hidden matrices, AdamW for the rest, as one optimizer that `transformers.Trainer` can drive and resume.

Muon (Jordan et al. 2024, `torch.optim.Muon`) takes two-dimensional weights only; embeddings, norms and biases stay with
AdamW.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from steer.heads.bottleneck import LatentHead


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers behind one interface.

    Parameter groups are shared objects, so a learning-rate scheduler reaches both.
    """

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self.parts = (muon, adamw)
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both parts."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both parts, under `parts`."""
        return {"parts": [part.state_dict() for part in self.parts], "state": {}, "param_groups": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both parts and take over their (new) parameter groups."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def build_optimizer(
    model: nn.Module,
    *,
    kind: str,
    learning_rate: float,
    muon_learning_rate: float,
    weight_decay: float,
    head_learning_rate: float | None = None,
    adam_beta2: float = 0.98,
) -> torch.optim.Optimizer:
    """An optimizer over the parameters of `model` that require gradients.

    Args:
        model: the model; matrices inside it that are not embeddings or output heads go to Muon.
        kind: `adamw` or `muon`.
        learning_rate: of AdamW.
        muon_learning_rate: of Muon ("original" scaling by `sqrt(max(1, rows / columns))`).
        head_learning_rate: of AdamW for the heads of a latent model; by default `learning_rate`.
        weight_decay: decoupled; not applied to vectors.
        adam_beta2: of AdamW.
    """
    embedding_ids = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    heads = (cast(Any, m).get_output_embeddings() for m in model.modules() if hasattr(m, "get_output_embeddings"))
    head_ids = {id(p) for head in heads if head is not None for p in head.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in embedding_ids | head_ids] if kind == "muon" else []
    chosen = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in chosen]
    own = {id(p) for m in model.modules() if isinstance(m, LatentHead) for p in m.parameters()}
    own = own if head_learning_rate is not None else set()
    groups = [
        {"params": [p for p in rest if (p.ndim >= 2) == wide and (id(p) in own) == in_head], "weight_decay": decay}
        | ({"lr": head_learning_rate} if in_head else {})
        for in_head in (False, True)
        for wide, decay in ((True, weight_decay), (False, 0.0))
    ]
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=(0.9, adam_beta2))
    if not matrices:
        return adamw
    return MuonAdamW(torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=weight_decay, momentum=0.95), adamw)
