"""MiniHF/BigVAE checkpoint folders, unchanged.

The contract was read from MiniHF's `vae_infer.py`, `train_vae_overlap.py` and `train_vae_router.py`: adapters
`encoder`, `decoder` and (stage 2) `router` as PEFT folders, `vae.safetensors` with `f`, `w_e`, `w_d`; the adapter at
the root is an untrained artefact and is ignored. Where there is no `router/`, the decoder takes its role, as MiniHF's
loader does.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from steer.errors import CheckpointError, LatentError
from steer.files import copy_mode, file_hash
from steer.heads.bottleneck import LatentHead
from steer.heads.stored import load_head, read_tensors
from steer.models.adapters import DECODER, ENCODER, ROUTER
from steer.models.base import check_files, load_base
from steer.models.checkpoint import ADAPTER, load_adapter, save_adapter
from steer.models.config import BaseIdentity, LatentConfig
from steer.models.layouts import MINIHF

VAE = "vae.safetensors"
SPAN = 64  # tokens per span in every MiniHF release


def load_minihf(
    cls: Any,
    folder: Path,
    base: str | Path | None,
    *,
    span_tokens: int = SPAN,
    fuse: bool | None = None,
    **options: Any,
) -> Any:
    """See `LatentModel.from_minihf`."""
    check_files(folder)
    if not (folder / VAE).is_file():
        raise CheckpointError(
            f"{folder} has no {VAE}: it is no MiniHF checkpoint (a steer model? use LatentModel.from_pretrained)"
        )
    for name in (ENCODER, DECODER):
        if not (folder / name / ADAPTER).is_file():
            raise CheckpointError(
                f"{folder} has no {name}/{ADAPTER}; a MiniHF checkpoint has encoder/, decoder/ and {VAE}"
            )
    where = base or _named_base(folder)
    plain, tokenizer = load_base(where, **options)
    tensors = read_tensors(folder / VAE)
    if "w_e.weight" not in tensors:
        raise CheckpointError(f"{folder / VAE} has no w_e.weight; found {sorted(tensors)}")
    z_dim = tensors["w_e.weight"].shape[0]
    identity = BaseIdentity.of(plain, str(where))
    head = LatentHead(identity.hidden_size, z_dim, 1, with_null=False)
    load_head(head, tensors, folder / VAE)
    peft = load_adapter(plain, folder / ENCODER, ENCODER)
    peft = load_adapter(peft, folder / DECODER, DECODER)
    router = ROUTER if (folder / ROUTER / ADAPTER).is_file() else DECODER
    peft = load_adapter(peft, folder / router, ROUTER)
    digest = hashlib.sha256((file_hash(folder / ENCODER / ADAPTER) + file_hash(folder / VAE)).encode()).hexdigest()
    config = LatentConfig(
        name=folder.name,
        layout="minihf",
        span_tokens=span_tokens,
        z_dim=z_dim,
        soft_tokens=1,
        max_context=1920,
        prefix_space=False,
        encoder_id=f"{folder.name}:{digest[:12]}",
        base=identity,
    )
    return cls(peft, head.to(plain.device), config, tokenizer, fuse=fuse).eval()


def save_minihf(model: Any, folder: Path) -> None:
    """Write a model of layout `minihf` in MiniHF's files, which `load_minihf` and MiniHF's own code read.

    Args:
        model: a `LatentModel`.
        folder: is created.

    Raises:
        LatentError: the model is of another layout.
    """
    config: LatentConfig = model.latent_config
    if model.layout is not MINIHF:
        raise LatentError(f"MiniHF's files hold no model of layout {config.layout!r}; train one of layout minihf")
    folder.mkdir(parents=True, exist_ok=True)
    for role in MINIHF.roles:
        save_adapter(model.peft, role, folder, base_name=config.base.name)
    heads = {name: tensor.detach().contiguous().cpu() for name, tensor in model.head.state_dict().items()}
    save_file(heads, folder / VAE)
    copy_mode(
        [folder / VAE, *(folder / role / ADAPTER for role in MINIHF.roles)], folder / ENCODER / "adapter_config.json"
    )


def _named_base(folder: Path) -> str:
    try:
        name = json.loads((folder / ENCODER / "adapter_config.json").read_text(encoding="utf-8")).get(
            "base_model_name_or_path"
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / ENCODER}/adapter_config.json cannot be read: {error}") from error
    if not name:
        raise CheckpointError(f"{folder} does not name its base model; pass base=FOLDER_OR_ID")
    return name


@torch.no_grad()
def decoder_logits(model: Any, z: Tensor, context: Tensor, target: Tensor) -> Tensor:
    """Logits `[B, 1 + C + T, V]` of BigVAE's stage-1 layout `[z][context][target]`.

    Where the first target token is predicted from the last context slot.

    Args:
        model: a `LatentModel` with a `decoder` adapter.
        z: `[B, z_dim]`.
        context: `[B, C]` token ids, all visible.
        target: `[B, T]` token ids.
    """
    embeds = torch.cat([model.soft(z), model.embed(context), model.embed(target)], dim=1)
    return model.role_logits(DECODER, embeds)
