"""Models without weights, and the memory that a training step of them would take.

A model is built from its configuration alone on PyTorch's `meta` device, then gets fake tensors: they have shapes and
types, take no memory, and nothing is computed. A step (forward and backward) runs on them as it would on real ones, and
every storage that comes up is counted while it lives. So the count holds for any family, with checkpointing, narrow
types and adapters as they are, where a formula would have to know each of them.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from steer.errors import TrainingError
from steer.heads.bottleneck import LatentHead
from steer.models.adapters import add_adapters
from steer.models.config import BaseIdentity, LatentConfig
from steer.models.latent_model import LatentModel
from steer.models.layouts import LAYOUTS, LayoutName


@dataclass(frozen=True)
class Peak:
    """The fullest moment of a step, in bytes, weights and gradients of parameters not counted.

    Attributes:
        activations: what is kept for the backward pass, and what is being computed.
        logits: of that what is as wide as the vocabulary.
    """

    activations: float
    logits: float


def hollow_base(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A causal LM of a configuration, on the `meta` device: shapes and types alone.

    Raises:
        TrainingError: transformers cannot build it.
    """
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
    except (ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise TrainingError(
            f"transformers cannot build a {config.model_type} of this configuration: {error}"
        ) from error


def meta_model(
    config: Any,
    *,
    rank: int,
    z_dim: int,
    soft_tokens: int,
    span_tokens: int,
    layout: LayoutName = "interleaved",
    dtype: torch.dtype = torch.float32,
) -> LatentModel:
    """A latent model with untrained adapters and heads on the `meta` device; the counterpart of `fresh_model`.

    Args:
        config: of the base, a `transformers` configuration.
        rank: of LoRA.
        z_dim, soft_tokens, span_tokens, layout: see `LatentConfig`.
        dtype: of the base; adapters and heads are float32.
    """
    base = hollow_base(config, dtype)
    base.requires_grad_(False)
    with torch.device("meta"), warnings.catch_warnings():
        # It says that weights were not copied to `meta`, which is what is wanted here.
        warnings.simplefilter("ignore")
        peft = add_adapters(base, LAYOUTS[layout].roles, rank, rank, low_cpu_mem_usage=True)
        identity = BaseIdentity.planned(config, "hollow")
        head = LatentHead(identity.hidden_size, z_dim, soft_tokens, with_null=LAYOUTS[layout].has_null)
    for name, parameter in peft.named_parameters():
        if "lora_" in name and not parameter.dtype == torch.float32:
            parameter.data = parameter.data.float()
    latent = LatentConfig(
        layout=layout, span_tokens=span_tokens, z_dim=z_dim, soft_tokens=soft_tokens, max_context=1, base=identity
    )
    return LatentModel(peft, head, latent, None)


def with_layers(config: Any, layers: int) -> Any:
    """A configuration with fewer layers."""
    shorter = copy.deepcopy(config)
    text = shorter.get_text_config()
    if kinds := getattr(text, "layer_types", None):
        text.layer_types = list(kinds)[:layers]
    text.num_hidden_layers = layers
    return shorter


def peak_of(modules: Iterable[nn.Module], step: Callable[[], Tensor], *, vocabulary: int, bf16: bool) -> Peak:
    """Count a step of hollow modules, whose tensors are made fake for it (and stay so).

    Args:
        modules: all modules with parameters.
        step: runs the forward pass on tensors that it makes, and returns the loss.
        vocabulary: the width of logits.
        bf16: with autocast to bfloat16.

    Raises:
        TrainingError: the model's code looks at the values of tensors, which are not there.
    """
    counter = _Counter(vocabulary)
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for parameter in _fill(modules):
            counter.know(parameter)
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
                counter.know(parameter.grad)
        try:
            with counter:
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = step()
                loss.backward()
        except DataDependentOutputException as error:
            raise TrainingError(
                f"this family of models cannot be run without weights ({error.func} depends on them), so its memory "
                "is not estimated; try a short run instead"
            ) from error
    return Peak(counter.fullest, counter.fullest_logits)


def _fill(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Put fake tensors in the places of `meta` ones, tied ones once; yields them."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # the old one is kept, or its id might be given anew
    for module in (inner for outer in modules for inner in outer.modules()):
        for table in (module._parameters, module._buffers):
            for name, old in table.items():
                if old is None:
                    continue
                if id(old) not in made:
                    new: Tensor = torch.empty(old.shape, dtype=old.dtype)
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = (new, old)
                table[name] = made[id(old)][0]  # type: ignore[index]
    yield from (new for new, _ in made.values())


class _Counter(TorchDispatchMode):
    """Adds up the bytes of storages from when an operation returns them until they are freed."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.seen: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()
        self.live = self.logits = 0
        self.fullest = self.fullest_logits = 0

    def know(self, tensor: Tensor) -> None:
        """Leave a tensor out of the count."""
        self.seen[tensor.untyped_storage()] = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in _pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.seen:
            return
        self.seen[storage] = None
        size = storage.nbytes()
        wide = size if tensor.ndim and tensor.shape[-1] == self.vocabulary else 0
        weakref.finalize(storage, self._free, size, wide)
        self.live += size
        self.logits += wide
        if self.live > self.fullest:
            self.fullest, self.fullest_logits = self.live, self.logits

    def _free(self, size: int, wide: int) -> None:
        self.live -= size
        self.logits -= wide
