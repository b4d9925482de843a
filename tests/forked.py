"""Processes to kill or to race, forked from the tests' own: a new one that imports torch takes ten seconds to begin."""

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes")


def fork(output: Path, call: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Begin `call(*arguments)` in a process of its own; what it prints, and its traceback, go into `output`."""
    process = multiprocessing.get_context("fork").Process(target=_into, args=(output, call, *arguments))  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings():
        # From Python 3.12 on: other threads may hold locks. Those of a test run hold none that a child looks at.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def _into(output: Path, call: Callable[..., Any], *arguments: Any) -> None:
    with output.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.stdout = sys.stderr = file
        try:
            call(*arguments)
        except BaseException:
            traceback.print_exc()
            file.flush()
            os._exit(1)
        file.flush()
    os._exit(0)  # what the parent has registered for its own end is none of the child's
