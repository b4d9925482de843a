"""`transformers.Trainer` as the stages use it: arguments, optimizer, records, resuming."""

import dataclasses
import itertools
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from steer.errors import TrainingError
from steer.training.optimizers import build_optimizer
from steer.training.recipe import TrainRecipe

logger = logging.getLogger(__name__)

STATE = "trainer_state.json"
# Activation checkpointing by the name that the installed transformers has for it; it was renamed within version 5.
_NEW, _OLD = "activation_checkpointing", "gradient_checkpointing"
CHECKPOINTING = _NEW if _NEW in {field.name for field in dataclasses.fields(TrainingArguments)} else _OLD


def compiles(train: TrainRecipe) -> bool:
    """Whether a stage runs through `torch.compile`, as the recipe says or, with `auto`, where that can work.

    Stages compile what they need themselves. `TrainingArguments(torch_compile=True)` would set it for the whole process
    (an environment variable that accelerate reads), so that a later stage's loss would be compiled too, around what its
    objective has compiled already.
    """
    if train.compile == "auto":
        return torch.cuda.is_available() or shutil.which("g++") is not None or shutil.which("clang++") is not None
    return train.compile == "on"


def training_arguments(
    train: TrainRecipe, folder: Path, *, seed: int, report_to: str = "none", use_cpu: bool = False
) -> TrainingArguments:
    """`TrainingArguments` of a stage. Checkpoints go to `folder/checkpoints`; the last two are kept."""
    cuda = torch.cuda.is_available() and not use_cpu
    if cuda and torch.cuda.device_count() > 1 and PartialState().num_processes == 1:
        raise TrainingError(
            f"one process sees {torch.cuda.device_count()} GPUs; start one per GPU with "
            "`torchrun --nproc_per_node N -m agents.cli train ...`, or choose one with CUDA_VISIBLE_DEVICES=0"
        )
    decay = int(train.steps * train.decay_share)
    checkpointing: dict[str, Any] = {CHECKPOINTING: True} if train.gradient_checkpointing else {}
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=train.steps,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        **checkpointing,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        warmup_steps=train.warmup_steps,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={
            "num_decay_steps": max(1, decay),
            "num_stable_steps": max(0, train.steps - decay - train.warmup_steps),
            "decay_type": "linear",
        },
        bf16=train.bf16,
        use_cpu=not cuda,
        eval_strategy="steps",
        eval_steps=train.eval_every,
        save_strategy="steps",
        save_steps=train.save_every,
        save_total_limit=2,
        logging_steps=20,
        report_to=report_to,
        seed=seed,
        data_seed=seed,
        remove_unused_columns=False,
        # A batch without context does not touch the null latent.
        ddp_find_unused_parameters=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=cuda,
    )


def enable_checkpointing(model: PreTrainedModel, **options: Any) -> None:
    """Trade time for memory: a model's layers are computed again in the backward pass.

    Args:
        model: that supports it.
        **options: of `torch.utils.checkpoint.checkpoint`.
    """
    enable = getattr(model, f"{_NEW}_enable", None) or getattr(model, f"{_OLD}_enable")
    enable({"use_reentrant": False, **options})


class CurveWriter(TrainerCallback):
    """Append every logged record to `curve.jsonl`, so that the curve outlives the checkpoints, and log it.

    `elapsed` of a record are the seconds since training was begun or resumed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.begin = path, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.begin = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line per record."""
        if state.is_world_process_zero and logs:
            if args.disable_tqdm:  # else `Bar` shows it
                logger.info("%s", _in_words(state, logs))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps(
                        {
                            "step": state.global_step,
                            "elapsed": round(time.monotonic() - self.begin, 1),
                            **{k: round(v, 6) if isinstance(v, float) else v for k, v in logs.items()},
                        }
                    )
                    + "\n"
                )


def _in_words(state: Any, logs: dict[str, Any]) -> str:
    """A record on one line."""
    shown = (f"{name} {value:.4g}" for name, value in logs.items() if isinstance(value, int | float))
    return f"step {state.global_step} of {state.max_steps}: {', '.join(shown)}"


class Bar(ProgressCallback):
    """The bar, with records above it on stderr; `ProgressCallback` sends them to stdout, where results go."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line per record."""
        if logs and self.training_bar is not None:
            self.training_bar.write(_in_words(state, logs), file=sys.stderr)


class StageTrainer(Trainer):
    """`Trainer` with the stage's optimizer."""

    def __init__(self, *, train_recipe: TrainRecipe, **kwargs: Any) -> None:
        self.train_recipe = train_recipe
        super().__init__(**kwargs)
        # Both print records on stdout, where results go; `CurveWriter` and `Bar` do not.
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(Bar)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:  # type: ignore[override]
        """Muon and AdamW, or AdamW alone, as the recipe says."""
        if self.optimizer is None:
            r = self.train_recipe
            self.optimizer = build_optimizer(
                cast(nn.Module, self.model),
                kind=r.optimizer,
                learning_rate=r.learning_rate,
                head_learning_rate=r.head_learning_rate,
                muon_learning_rate=r.muon_learning_rate,
                weight_decay=r.weight_decay,
                adam_beta2=r.adam_beta2,
            )
        return self.optimizer


def seconds_trained(curve: Path) -> float | None:
    """Seconds in all sessions of a stage, up to each one's last record; None where its records say none.

    What `Trainer` reports as `train_runtime` is the last session's.
    """
    if not curve.is_file():
        return None
    records = (json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines())
    times = [record["elapsed"] for record in records if "elapsed" in record]
    ends = [here for here, following in itertools.pairwise([*times, 0.0]) if following < here]
    return round(sum(ends), 1) if times else None


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: its `trainer_state.json` is written last."""
    found = [path for path in folder.glob("checkpoint-*") if (path / STATE).is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _last_evaluation(trainer: Trainer) -> dict[str, float] | None:
    """The figures of the evaluation after the last step, if there was one."""
    state = trainer.state
    for record in reversed(state.log_history):
        if record["step"] == state.global_step and any(name.startswith("eval_") for name in record):
            return {name: value for name, value in record.items() if name.startswith("eval_")}
    return None


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, of a GPU or of this machine."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def train_or_resume(trainer: Trainer, folder: Path) -> dict[str, float]:
    """Train, from the last checkpoint where there is one, and evaluate at the end.

    Raises:
        TrainingError: memory ran out, the loss became NaN, or the last checkpoint does not fit the recipe.
    """
    last = last_checkpoint(folder / "checkpoints")
    figures: dict[str, float] = {}
    try:
        if last and json.loads((last / STATE).read_text())["global_step"] >= trainer.args.max_steps:
            trainer._load_from_checkpoint(str(last))
        else:
            if last:
                logger.info("resuming from %s", last)
            figures = trainer.train(resume_from_checkpoint=str(last) if last else None).metrics
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        if _is_memory(error):
            raise TrainingError(
                "out of memory; lower train.batch_size and raise gradient_accumulation_steps, set "
                "gradient_checkpointing: true, or hold the base narrower (autoencoder.load_in); `--dry-run` tells what "
                "takes how much"
            ) from error
        if last and not isinstance(error, TrainingError):
            raise TrainingError(
                f"cannot go on from {last}: {error}; if the recipe was changed, train into a new folder"
            ) from error
        raise
    metrics = {**figures, **(_last_evaluation(trainer) or trainer.evaluate())}
    if (seconds := seconds_trained(folder / "curve.jsonl")) is not None:
        metrics["train_runtime"] = seconds
    if not all(v == v for v in metrics.values() if isinstance(v, float)):
        raise TrainingError(f"training ended with NaN figures: {metrics}; lower the learning rate")
    return metrics
