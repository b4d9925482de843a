"""LoRA adapters on one base: which one is in force, and fused copies for fast writing."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.pytorch_utils import Conv1D

from steer.errors import LatentError
from steer.models.base import quietly
from steer.models.small_batch import for_small_batches

ENCODER, DECODER, ROUTER = "encoder", "decoder", "router"


def lora_config(base: Any, rank: int, alpha: int) -> LoraConfig:
    """LoRA on all linear layers of the base except its output head."""
    transposed = any(isinstance(module, Conv1D) for module in base.modules())  # GPT-2 keeps its weights as [in, out]
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )


@quietly()
def add_adapters(base: Any, roles: Sequence[str], rank: int, alpha: int, **options: Any) -> Any:
    """Put untrained adapters on a base, one for each role. Returns the `PeftModel`.

    Args:
        base: a `transformers` causal LM.
        roles: names of the adapters, see `steer.models.layouts`.
        rank, alpha: of LoRA, see `lora_config`.
        **options: of PEFT, for each of the adapters.
    """
    peft: Any = get_peft_model(base, lora_config(base, rank, alpha), adapter_name=roles[0], **options)
    for role in roles[1:]:
        peft.add_adapter(role, lora_config(base, rank, alpha), **options)
    return peft


def check_adapter(peft: PeftModel, name: str) -> None:
    """Raise `LatentError` if there is no such adapter: PEFT would put none in force and say nothing."""
    if name not in peft.peft_config:
        raise LatentError(f"the model has no adapter {name!r}; it has {', '.join(sorted(peft.peft_config))}")


@contextlib.contextmanager
def use_adapter(peft: PeftModel, name: str | None) -> Iterator[Any]:
    """Put one adapter in force (None: the bare base) and restore what was there on exit.

    PEFT's own `set_adapter` also switches `requires_grad` of every adapter, which would freeze the encoder in the
    middle of a training step; here the flags stay as they are.

    Yields:
        The base model, adapters applied.

    Raises:
        LatentError: there is no such adapter.
    """
    if name is not None:
        check_adapter(peft, name)
    layers = [module for module in peft.modules() if isinstance(module, BaseTunerLayer)]
    before = [(layer, list(layer.active_adapters), layer.disable_adapters) for layer in layers]
    flags = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]

    def put(states: list[tuple[Any, list[str], bool]]) -> None:
        for layer, active, disabled in states:
            layer.enable_adapters(not disabled)
            layer.set_adapter(active)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

    put([(layer, [name] if name else active, name is None) for layer, active, _ in before])
    try:
        yield peft.get_base_model()
    finally:
        put(before)


def switch_adapter(peft: PeftModel, name: str) -> None:
    """Put one adapter in force and leave it so, `requires_grad` untouched; nothing is done where it is already.

    For layers that are computed again in the backward pass, when the `use_adapter` of the forward pass is long over.
    """
    check_adapter(peft, name)
    layers = [module for module in peft.modules() if isinstance(module, BaseTunerLayer)]
    if all(list(layer.active_adapters) == [name] and not layer.disable_adapters for layer in layers):
        return
    flags = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(True)
        layer.set_adapter([name])
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def fused_copy(peft: PeftModel, name: str | None) -> Any:
    """A plain `transformers` model with one adapter merged into its weights, or without any adapter (None).

    Weights that no adapter touches (embeddings, norms, output head) are shared with the original, so the copy costs the
    adapted matrices only, and that of the bare base nothing. The merge is done in float32 and cast back, once.
    """
    if name is None:
        return for_small_batches(copy.deepcopy(peft, {id(p): p for p in peft.parameters()}).unload().eval())
    check_adapter(peft, name)
    layers = [layer.get_base_layer() for layer in peft.modules() if isinstance(layer, BaseTunerLayer)]
    adapted = {id(p) for layer in layers for p in layer.parameters(recurse=False)}  # a layer of experts has several
    shared = [p for n, p in peft.named_parameters() if "lora_" not in n and id(p) not in adapted]
    with torch.no_grad():
        clone = copy.deepcopy(peft, {id(p): p for p in shared})
        plain = clone.merge_and_unload(adapter_names=[name])
    plain.requires_grad_(False)
    return for_small_batches(plain.eval())
