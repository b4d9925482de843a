"""The layers of a base by number, in any architecture of `transformers`."""

import copy
from typing import Any

from torch import nn

from steer.errors import UnsupportedBase
from steer.models.base import backbone


def layer_list(body: Any) -> tuple[str, nn.ModuleList]:
    """The list of a backbone's layers, and the name of the attribute that holds it.

    Raises:
        UnsupportedBase: the backbone has no list of as many modules as its configuration tells layers.
    """
    wanted = body.config.get_text_config().num_hidden_layers
    for name, module in body.named_children():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, module
    raise UnsupportedBase(
        f"{type(body).__name__} has no list of {wanted} layers among {[name for name, _ in body.named_children()]}; "
        "Llama, Mistral, Qwen, Gemma, GPT-2 and GPT-NeoX models have"
    )


def lower_layers(base: Any, layers: int) -> Any:
    """The backbone of a causal LM cut after some layers; `last_hidden_state` is the input of the next one.

    All modules are the base's own, so it costs nothing to make and follows whatever adapter is in force there.

    Args:
        base: a `transformers` causal LM.
        layers: how many, at most what the base has; the final norm is left out.

    Raises:
        UnsupportedBase: the base has fewer layers, or they cannot be found.
    """
    body = backbone(base)
    name, found = layer_list(body)
    if layers > len(found):
        raise UnsupportedBase(f"layer {layers} was asked of a base of {len(found)} layers; give at most {len(found)}")
    cut = copy.copy(body)
    cut._modules = dict(body._modules)
    cut._modules[name] = found[:layers]
    for child in reversed(list(cut._modules)):
        # The final norm stands behind the layers; what stands behind it (rotary embeddings) has no weights.
        if child != name and "norm" in child.lower() or child == "ln_f":
            cut._modules[child] = nn.Identity()
            break
    cut.config = copy.copy(body.config)
    cut.config.num_hidden_layers = layers
    return cut
