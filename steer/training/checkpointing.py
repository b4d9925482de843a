"""Activation checkpointing by the name that the installed transformers has for it; it was renamed within version 5."""

import dataclasses
from typing import Any

from transformers import TrainingArguments

NEW, OLD = "activation_checkpointing", "gradient_checkpointing"


def enable_checkpointing(model: Any, **options: Any) -> None:
    """Trade time for memory: a model's layers are computed again in the backward pass.

    Args:
        model: a `transformers.PreTrainedModel` that supports it.
        **options: of `torch.utils.checkpoint.checkpoint`.
    """
    enable = getattr(model, f"{NEW}_enable", None) or getattr(model, f"{OLD}_enable")
    enable({"use_reentrant": False, **options})


def checkpointing_arguments(wanted: bool) -> dict[str, Any]:
    """The keyword of `TrainingArguments` that asks for it; none where it is not wanted."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    return {NEW if NEW in known else OLD: True} if wanted else {}
