"""Activation steering: a vector added to the residual stream of one layer while a model writes.

The usual way to steer a model without training it, and so a rival of pulls in latent space: what a layer holds over a
text that is wished for, less what it holds over other texts (difference of means: Turner et al., 2023,
arXiv:2308.10248; Rimsky et al., 2023, arXiv:2312.06681; Zou et al., 2023, arXiv:2310.01405).

```python
wanted, _ = mean_residuals(model, ["The cat slept."], layer=3)
others, norm = mean_residuals(model, others, layer=3)
writer = open_writer(model, contexts, seeds=seeds, spans=6)
with steered(unguided_path(model), control_vector(wanted, others, norm=norm), layer=3, strength=0.2):
    writer.write(None)
```
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer.errors import GuidanceError, TextError, UnsupportedBase
from steer.models.latent_model import LatentModel
from steer.models.layers import layers_of
from steer.models.tokens import pad_rows, text_begin


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a causal language model of `transformers`, lowest first.

    Raises:
        GuidanceError: none are found; a model of an unknown build.
    """
    try:
        return layers_of(model)
    except UnsupportedBase as error:
        raise GuidanceError(f"it cannot be steered by activations: {error}") from error


def middle_layer(model: PreTrainedModel) -> int:
    """The layer in the middle, counted from 0, where steering is said to do most."""
    return len(decoder_layers(model)) // 2


def control_vector(wanted: Tensor, others: Tensor, *, norm: float) -> Tensor:
    """From the mean of `others` towards each of `wanted`, brought to one length.

    Args:
        wanted: `[n, d]`, mean residuals of the texts that are wished for.
        others: `[m, d]`, those of texts that are not.
        norm: the length to bring them to: with the mean norm of a residual, a strength of 1 is as much as is there.

    Returns:
        `[n, d]`; zeros where a wanted text is the mean of the others.

    Raises:
        GuidanceError: shapes that do not fit, or no other text.
    """
    if wanted.ndim != 2 or others.ndim != 2 or wanted.shape[1] != others.shape[1] or not len(others):
        raise GuidanceError(
            f"expected wanted [n, d] and others [m, d] with m of at least 1; got {list(wanted.shape)} and "
            f"{list(others.shape)}"
        )
    return nn.functional.normalize(wanted - others.mean(0), dim=1) * norm


@contextmanager
def steered(model: PreTrainedModel, vector: Tensor, layer: int, strength: float) -> Iterator[None]:
    """Add `strength * vector` to what leaves a layer, at every position of every forward pass inside.

    What was read before, into a cache, stays as it is. Strength 0 changes nothing, bit for bit.

    Args:
        model: a causal language model of `transformers`.
        vector: `[d]` for all rows, or `[n, d]` for passes of n rows.
        layer: counted from 0.
        strength: factor.

    Raises:
        GuidanceError: there is no such layer.
    """
    added = strength * vector

    def add(module: nn.Module, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        moved = hidden + (added if added.ndim == 1 else added[:, None]).to(hidden)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = _layer(model, layer).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watched(model: PreTrainedModel, layer: int) -> Iterator[list[Tensor]]:
    """Collect what leaves a layer, `[n, t, d]` for each forward pass inside.

    Args:
        model: a causal language model of `transformers`.
        layer: counted from 0.

    Raises:
        GuidanceError: there is no such layer.
    """
    seen: list[Tensor] = []

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = _layer(model, layer).register_forward_hook(see)
    try:
        yield seen
    finally:
        handle.remove()


def unguided_path(model: LatentModel) -> Any:
    """The `transformers` model that a `LatentModel` runs where it writes unguided."""
    return model.fused(model.layout.unguided_role) if model.fuse else model.peft.get_base_model()


@torch.no_grad()
def mean_residuals(model: LatentModel, texts: Sequence[str], layer: int) -> tuple[Tensor, float]:
    """What a layer holds over texts when a `LatentModel` reads them as it writes unguided.

    The mean is over a text's own tokens: what stands before them (the null latent, or the begin of a text) draws
    attention that has nothing to do with the text, and its residual is many times as long.

    Args:
        texts: read each by itself.
        layer: counted from 0.

    Returns:
        Means `[n, d]` float32 on the model's device, and the mean norm of a token's residual.

    Raises:
        GuidanceError: there is no such layer.
        TextError: there is no text, or one without tokens.
    """
    rows = [model.to_ids(text) for text in texts]
    if not rows or not all(rows):
        raise TextError(f"cannot read {len(rows)} texts of {min(map(len, rows), default=0)} tokens; give some text")
    role = model.layout.unguided_role
    ids, mask = pad_rows(rows, device=model.device)
    if role is None:
        begin = torch.full((len(rows), 1), text_begin(model.tokenizer), device=model.device)
        before = model.embed(begin)
    else:
        before = model.soft(None, len(rows))
    ahead = torch.ones(before.shape[:2], dtype=torch.long, device=model.device)
    with watched(unguided_path(model), layer) as seen:
        model.role_logits(role, torch.cat([before, model.embed(ids)], dim=1), torch.cat([ahead, mask], dim=1))
    hidden = seen[0][:, before.shape[1] :].float()
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return means, float(hidden.norm(dim=2)[mask.bool()].mean())


def _layer(model: PreTrainedModel, layer: int) -> nn.Module:
    layers = decoder_layers(model)
    if not 0 <= layer < len(layers):
        raise GuidanceError(f"there is no layer {layer}; expected 0 to {len(layers) - 1}")
    return layers[layer]
