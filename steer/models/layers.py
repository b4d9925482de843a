"""The layers of a base by number, in any architecture of `transformers`."""

import copy
from typing import Any

from torch import nn

from steer.errors import UnsupportedBase
from steer.models.base import backbone


def layers_of(model: Any) -> nn.ModuleList:
    """The layers of a causal language model of `transformers`, lowest first.

    Raises:
        UnsupportedBase: none are found; a model of an unknown build.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in backbone(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UnsupportedBase(
        f"found no list of {count} layers in {type(model).__name__}; Llama, Mistral, Qwen, Gemma, GPT-2 and GPT-NeoX "
        "models have one"
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
    body, found = backbone(base), layers_of(base)
    name = next((name for name, child in body.named_children() if child is found), None)
    if name is None:
        raise UnsupportedBase(f"the layers of {type(body).__name__} do not stand in it directly, so it cannot be cut")
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
