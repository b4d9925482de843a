"""The folder of a latent model, and verified loading.

```
steer_config.json      settings, base identity, SHA-256 of the weight files
encoder/  router/      PEFT adapter folders
encoder.safetensors    what the state encoder projects on, where there is no encoder/
heads.safetensors      pooling, posterior mean, soft tokens, null latent
reach.safetensors      reach head, where it has one
prior.safetensors      draft head, where it has one
base/                  the base model and its tokenizer, where it is packaged
README.md              model card
```
"""

import copy
import hashlib
import logging
import shlex
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from steer.errors import CheckpointError, ModelNotFound
from steer.files import copy_mode, file_hash
from steer.heads.prior import PriorHead
from steer.heads.reach import ReachHead
from steer.heads.stored import load_head, read_tensors
from steer.models.adapters import ENCODER
from steer.models.base import check_files, load_base, missing_folder, quietly
from steer.models.config import CONFIG_NAME, BaseIdentity, LatentConfig
from steer.models.sources import is_local_name
from steer.models.state_encoder import StateEncoder

logger = logging.getLogger(__name__)

HEADS = "heads.safetensors"
STATES = "encoder.safetensors"
REACH = "reach.safetensors"
PRIOR = "prior.safetensors"
ADAPTER = "adapter_model.safetensors"
PACKAGED_BASE = "base"


def packaged_model() -> Path:
    """Folder of the model that is used where none is named."""
    return Path(__file__).parent / "llama-fable-6m"


def packaged_models() -> list[Path]:
    """Folders of all models that come with the package, by name."""
    return sorted(path.parent for path in Path(__file__).parent.glob(f"*/{CONFIG_NAME}"))


def fetch(model_id: str, **options: Any) -> Path:
    """A local folder for a folder, the name of the packaged model, or a hub id.

    Raises:
        ModelNotFound: there is no such folder and the hub does not give one.
    """
    path = Path(model_id)
    if path.is_dir():
        return path
    for packaged in packaged_models():
        if model_id == packaged.name:
            return packaged
    if path.is_absolute() or model_id.startswith((".", "~")) or model_id.count("/") != 1:
        raise ModelNotFound(
            f"no model folder at {model_id!r}; expected a folder with {CONFIG_NAME}, a hub id (owner/name), or "
            f"{' or '.join(repr(p.name) for p in packaged_models())}"
        )
    try:
        return Path(snapshot_download(model_id, **options))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelNotFound(f"cannot find model {model_id!r}: no such folder, and the hub says: {reason}") from error


@quietly()
def load_adapter(base_or_peft: Any, folder: Path, name: str) -> PeftModel:
    """Load one PEFT adapter folder under a name, frozen, and check that it fits.

    Raises:
        CheckpointError: parts are missing, truncated, or of shapes that do not fit the base.
    """
    tensors = read_tensors(folder / ADAPTER)
    bad = [k for k, v in tensors.items() if not torch.isfinite(v).all()]
    if bad:
        raise CheckpointError(f"{folder / ADAPTER}: {len(bad)} tensors hold NaN or infinity (first: {bad[0]})")
    try:
        if isinstance(base_or_peft, PeftModel):
            config = PeftConfig.from_pretrained(str(folder))
            base_or_peft.load_adapter(str(folder), adapter_name=name, peft_config=config)
            peft = base_or_peft
        else:
            # PEFT warns of missing keys; they are compared below, for every adapter.
            peft = PeftModel.from_pretrained(base_or_peft, str(folder), adapter_name=name)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"the adapter in {folder} does not fit this base: {str(error).splitlines()[0]}"
        ) from error
    expected = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False).keys()
    if wrong := sorted(expected ^ tensors.keys()):
        raise CheckpointError(
            f"{folder / ADAPTER} has {len(tensors)} tensors, the base takes {len(expected)}, and {len(wrong)} names "
            f"differ (first: {wrong[0]}); "
            "it belongs to another base or is incomplete"
        )
    peft.requires_grad_(False)
    peft.eval()
    return peft


def save_adapter(
    peft: PeftModel, name: str, folder: Path, dtype: torch.dtype | None = None, base_name: str | None = None
) -> None:
    """Write one adapter as a PEFT folder, weights cast to `dtype`, naming `base_name` as its base."""
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    # Told not to, PEFT does not look for the base's configuration (on the hub even) to find out whether embeddings were
    # trained.
    state = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False)
    save_file(
        {k: v.detach().to(dtype or v.dtype).contiguous().cpu() for k, v in state.items()},
        target / ADAPTER,
        metadata={"format": "pt"},
    )
    config = copy.copy(peft.peft_config[name])
    config.inference_mode, config.base_model_name_or_path = True, base_name
    config.save_pretrained(str(target))


def encoder_identity(folder: Path, name: str) -> str:
    """A short identity of what makes latents: the encoder's weights and the heads, or the state encoder, as stored."""
    parts = [folder / STATES] if (folder / STATES).is_file() else [folder / ENCODER / ADAPTER, folder / HEADS]
    digest = hashlib.sha256("".join(map(file_hash, parts)).encode()).hexdigest()
    return f"{name}:{digest[:12]}"


@quietly()
def save(model: Any, folder: Path, *, dtype: torch.dtype | None = None, with_base: bool | None = None) -> None:
    """Write a model folder; `steer_config.json` comes last, so an interrupted save is recognised as incomplete.

    Args:
        model: a `LatentModel`.
        folder: is created.
        dtype: weights are cast to it (default: as they are).
        with_base: store the base inside; by default where the model came with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: LatentConfig = model.latent_config
    inside = config.base.name == PACKAGED_BASE if with_base is None else with_base
    # A base inside the folder goes by that name: the place where it was trained says nothing elsewhere.
    base_name = PACKAGED_BASE if inside else config.base.name
    names = [n for n in model.peft.peft_config if n != "default"]
    for name in names:
        save_adapter(model.peft, name, folder, dtype, base_name)
    heads = {k: v.detach().to(dtype or v.dtype).contiguous().cpu() for k, v in model.head.state_dict().items()}
    save_file(heads, folder / HEADS)
    files = [f"{name}/{ADAPTER}" for name in names] + [HEADS]
    if model.state_encoder is not None:
        model.state_encoder.save(folder / STATES, dtype)
        files.append(STATES)
    if inside:
        base = model.bare_copy()
        base.to(dtype or base.dtype).save_pretrained(folder / PACKAGED_BASE)
        model.tokenizer.save_pretrained(folder / PACKAGED_BASE)
        files += [f"{PACKAGED_BASE}/{p.name}" for p in sorted((folder / PACKAGED_BASE).glob("*.safetensors"))]
        config = config.model_copy(update={"base": config.base.model_copy(update={"name": PACKAGED_BASE})})
    encoder_id = encoder_identity(folder, config.name)
    extra: dict[str, Any] = {"reach": None, "prior": None}
    for name, file, head in (("reach", REACH, model.reach), ("prior", PRIOR, model.prior)):
        if head is not None:
            head.check_encoder(config.encoder_id)
            head.save(folder / file, dtype)
            files.append(file)
            # The same encoder, stored anew: perhaps in another dtype, which gives its files another identity.
            extra[name] = head.config.model_copy(update={"encoder_id": encoder_id})
    hashes = {file: file_hash(folder / file) for file in files}
    config.model_copy(update={"files": hashes, "encoder_id": encoder_id, **extra}).save(folder)
    copy_mode((folder / file for file in files), folder / CONFIG_NAME)


def read_settings(folder: Path) -> LatentConfig:
    """The settings of a model folder; of another folder, an error that says where a model is or how to make one.

    Raises:
        CheckpointError: the folder is no steer model, or its settings are damaged.
    """
    if not (folder / CONFIG_NAME).is_file():
        # What a run leaves: people give the run's folder, or that of its packages.
        below = sorted(path.parent for way in ("*", "package/*") for path in folder.glob(f"{way}/{CONFIG_NAME}"))
        if below:
            raise CheckpointError(
                f"{folder} has no {CONFIG_NAME}: it is no steer model; did you mean {' or '.join(map(str, below))}?"
            )
        if (folder / "config.json").is_file():
            raise CheckpointError(
                f"{folder} has no {CONFIG_NAME}: it is no steer model, but looks like a base; `steer train autoencoder "
                f"--base {shlex.quote(str(folder))} --data FILE --out RUN` makes a steer model of it"
            )
    return LatentConfig.load(folder)


def load(
    cls: Any,
    folder: Path,
    *,
    base: str | Path | None = None,
    verify: bool = True,
    fuse: bool | None = None,
    **options: Any,
) -> Any:
    """Load a model folder.

    Args:
        cls: `LatentModel`.
        folder: as written by `save`.
        base: where the base is, if not where the configuration says.
        verify: compare SHA-256 of the weight files.
        fuse: see `LatentModel`.
        **options: see `steer.models.base.load_base`.

    Raises:
        CheckpointError: a file is missing, truncated, tampered with, of wrong shapes, or a link out of the folder.
        BaseMismatch: the base is not the one that was trained on.
        ModelNotFound: the base cannot be found.
    """
    check_files(folder)
    config = read_settings(folder)
    for file, expected in config.files.items() if verify else ():
        # Names from the folder itself must not lead out of it.
        if ".." in Path(file).parts or Path(file).is_absolute() or not (folder / file).is_file():
            raise CheckpointError(f"{folder / file} is missing; the checkpoint is incomplete")
        if (found := file_hash(folder / file)) != expected:
            raise CheckpointError(
                f"{folder / file} was changed or is truncated: SHA-256 {found[:12]}..., recorded {expected[:12]}..."
            )
    where = base or (folder / PACKAGED_BASE if config.base.name == PACKAGED_BASE else config.base.name)
    try:
        plain, tokenizer = load_base(where, **options)
    except ModelNotFound as error:
        # What the caller named, or what is there and does not load, is known by the name in the error.
        if base or Path(where).is_dir() or is_local_name(where):
            raise
        # A relative path may be there, seen from another folder.
        place = Path(where).absolute()
        what = f": expected at {place}, no such folder" if missing_folder(where) else f" or does not load: {error}"
        raise ModelNotFound(
            f"the base of the model in {folder} is missing{what}; if it has moved, move it back, or load the model "
            f"with LatentModel.from_pretrained({str(folder)!r}, base=...)"
        ) from error
    config.base.check(BaseIdentity.of(plain, str(where)))
    peft: Any = plain
    for role in config.roles:
        peft = load_adapter(peft, folder / role, role)
    head = config.new_head()
    load_head(head, read_tensors(folder / HEADS), folder / HEADS)
    head.to(device=plain.device, dtype=torch.float32)
    heads = {name: found.to(plain.device) for name, found in read_heads(folder, config).items()}
    for parameter in peft.parameters():
        if parameter.dtype == torch.float32 and plain.dtype != torch.float32:
            parameter.data = parameter.data.to(plain.dtype)
    return cls(peft, head, config, tokenizer, fuse=fuse, **heads).eval()


def read_heads(folder: Path, config: LatentConfig) -> dict[str, Any]:
    """The reach head (`reach`), draft head (`prior`) and state encoder of a model folder, as far as it has them.

    Args:
        folder: as written by `save`.
        config: of that folder.

    Raises:
        CheckpointError: a head is missing, damaged, or belongs to another encoder.
    """
    found: dict[str, Any] = {}
    if config.reach is not None:
        found["reach"] = ReachHead.load(folder / REACH, config.reach, config.encoder_id)
    if config.state_encoder is not None:
        found["state_encoder"] = StateEncoder.load(
            folder / STATES, config.state_encoder, config.base.hidden_size, config.base.vocab_size
        )
    if config.prior is not None:
        found["prior"] = PriorHead.load(folder / PRIOR, config.prior, config.encoder_id)
    return found
