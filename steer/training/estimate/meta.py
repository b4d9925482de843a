"""Models without weights, and the memory that a training step of them would take.

A model is built from its configuration alone on PyTorch's `meta` device, then gets fake tensors: they have shapes and
types, take no memory, and nothing is computed. A step (forward and backward) runs on them as it would on real ones, and
every storage that comes up is counted while it lives. So the count holds for any family, with checkpointing, narrow
types and adapters as they are, where a formula would have to know each of them.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from steer.errors import TrainingError
from steer.models.build import add_latents, new_config
from steer.models.config import BaseIdentity, LatentConfig
from steer.models.latent_model import LatentModel
from steer.training.recipe import LatentRecipe, MiniHFRecipe, shape_of

FEW, MORE = 2, 4  # layers of the two counted steps; even, as some families take turns of two kinds of layers


@dataclass(frozen=True)
class Peak:
    """The fullest moment of a step, in bytes, weights and gradients of parameters not counted.

    Attributes:
        activations: what is kept for the backward pass, and what is being computed.
        logits: of that what is as wide as the vocabulary.
    """

    activations: float
    logits: float


def random_base(config: Any, device: torch.device | str = "meta", dtype: torch.dtype = torch.float32) -> Any:
    """A causal LM of a configuration with random weights; on `meta` shapes and types alone.

    Raises:
        TrainingError: transformers cannot build it.
    """
    try:
        with torch.device(device):
            return AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise TrainingError(
            f"transformers cannot build a {config.model_type} of this configuration: {error}"
        ) from error


def random_model(
    config: Any,
    latent: LatentRecipe | MiniHFRecipe | LatentConfig,
    device: torch.device | str = "meta",
    *,
    rank: int,
    dtype: torch.dtype = torch.float32,
) -> LatentModel:
    """A latent model on a base of a configuration, with random weights and without a tokenizer.

    Args:
        config: of the base.
        latent: whose shapes it has, see `steer.training.recipe.shape_of`.
        device: where it is made; on `meta` it has no weights.
        rank: of LoRA.
        dtype: of the base; adapters and heads are float32.

    Raises:
        TrainingError: see `random_base`.
    """
    base = random_base(config, device, dtype)
    base.requires_grad_(False)
    settings = new_config(BaseIdentity.planned(config, "random"), **shape_of(latent))
    on_meta = torch.device(device).type == "meta"
    with torch.device(device), warnings.catch_warnings():
        # It says that weights were not copied to `meta`, which is what is wanted here.
        warnings.simplefilter("ignore")
        model = add_latents(base, None, settings, rank=rank, alpha=rank, low_cpu_mem_usage=on_meta)
    for name, parameter in model.peft.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model


def with_layers(config: Any, layers: int) -> Any:
    """A configuration with fewer layers."""
    shorter = copy.deepcopy(config)
    text = shorter.get_text_config()
    if kinds := getattr(text, "layer_types", None):
        text.layer_types = list(kinds)[:layers]
    text.num_hidden_layers = layers
    return shorter


def peak_of(module: nn.Module, step: Callable[[], Tensor], *, vocabulary: int, bf16: bool) -> Peak:
    """Count a step of a module on `meta`, whose tensors are made fake for it (and stay so).

    Args:
        module: with all parameters.
        step: runs the forward pass on tensors that it makes, and returns the loss.
        vocabulary: the width of logits.
        bf16: with autocast to bfloat16.

    Raises:
        TrainingError: the model's code looks at the values of tensors, which are not there.
    """
    counter = _Counter(vocabulary)
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for parameter in _fill(module):
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


def _fill(whole: nn.Module) -> Iterator[Tensor]:
    """Put fake tensors in the places of `meta` ones, tied ones once; yields them."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # the old one is kept, or its id might be given anew
    for module in whole.modules():
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


def along(config: Any, peak: Callable[[Any], Peak]) -> Peak:
    """The peak of all layers of a configuration, from those of few; what each layer adds is the same."""
    layers = config.get_text_config().num_hidden_layers
    if layers <= MORE + FEW:
        return peak(config)
    few, more = peak(with_layers(config, FEW)), peak(with_layers(config, MORE))
    slope = (more.activations - few.activations) / (MORE - FEW)
    return Peak(few.activations + slope * (layers - FEW), more.logits)


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
