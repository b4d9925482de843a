"""Training one step of the autoencoder stage: rows of spans, the trainer, and what is left of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from steer.data.corpus import TokenCorpus
from steer.data.windows import SpanDataset, collate, sentence_ends
from steer.errors import TrainingError
from steer.evaluation.likelihood import summarize
from steer.heads.stored import read_tensors
from steer.models.latent_model import LatentModel
from steer.models.minihf import save_minihf
from steer.training.objectives.beta import beta_at
from steer.training.objectives.interleaved import LatentObjective
from steer.training.phases import Phase
from steer.training.recipe import Recipe
from steer.training.stage import mark_done
from steer.training.trainer import CurveWriter, StageTrainer, compiles, train_or_resume, training_arguments

TRAINED = "trained.safetensors"
EVAL_ROWS = 96


def train_phase(
    phase: Phase,
    model: LatentModel,
    recipe: Recipe,
    corpora: tuple[TokenCorpus, np.ndarray, TokenCorpus],
    folder: Path,
    *,
    report_to: str = "none",
) -> Path:
    """Train a step, from its last checkpoint where there is one, and save the model (float32).

    Args:
        phase: what is trained, and on what.
        model: is changed.
        recipe: its seed and its section `autoencoder`.
        corpora: as `prepare_corpus` gives them.
        folder: of the step; `model` is written inside it, and of layout `minihf` also `minihf`, the same in MiniHF's
            files.
        report_to: passed to `TrainingArguments`.

    Returns:
        The model's folder.

    Raises:
        TrainingError: see `train_or_resume`.
    """
    train = phase.train
    objective = phase.prepare(model, compiled=compiles(train))
    folder.mkdir(parents=True, exist_ok=True)
    trainer = LatentTrainer(
        recipe,
        train_recipe=train,
        model=objective,
        args=training_arguments(train, folder, seed=recipe.seed, report_to=report_to),
        data_collator=collate,
        callbacks=[CurveWriter(folder / "curve.jsonl")],
        **_rows(phase, model.tokenizer, corpora),
    )
    metrics = train_or_resume(trainer, folder)
    if trainer.is_world_process_zero():
        model.eval()
        model.latent_config = model.latent_config.model_copy(update={"latent_norm": metrics["eval_latent_norm"]})
        model.save_pretrained(folder / "model")
        if model.layout.has_decoder:
            save_minihf(model, folder / "minihf")
        mark_done(folder, {**metrics, "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)})
    PartialState().wait_for_everyone()
    return folder / "model"


def _rows(phase: Phase, tokenizer: Any, corpora: tuple[TokenCorpus, np.ndarray, TokenCorpus]) -> dict[str, SpanDataset]:
    """Rows to train and to evaluate on (on whole spans), as arguments of `LatentTrainer`."""
    stories, repeats, validation = corpora
    shared: dict[str, Any] = {
        "spans": phase.spans,
        "span_tokens": phase.span_tokens,
        "context_tokens": phase.context,
        "eos_id": tokenizer.eos_token_id,
        "ends": sentence_ends(tokenizer),
    }
    train, own = phase.train, {"partial_prob": phase.partial_prob, "seed": phase.seed}
    rows = train.steps * train.batch_size * train.gradient_accumulation_steps * PartialState().num_processes
    return {
        "train_dataset": SpanDataset(stories, repeats, length=rows, **own, **shared),
        "eval_dataset": SpanDataset(validation, None, length=EVAL_ROWS, partial_prob=0.0, seed=0, **shared),
    }


class LatentTrainer(StageTrainer):
    """`Trainer` that gives the loss its beta, and evaluates with own, null and wrong latents.

    Args:
        recipe: its section `autoencoder` says how beta rises, and the length of spans.
        **kwargs: see `StageTrainer`.
    """

    def __init__(self, recipe: Recipe, **kwargs: Any) -> None:
        self.latent = recipe.autoencoder
        self._logged: dict[str, list[float]] = {}
        super().__init__(**kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective at the current step."""
        beta = beta_at(self.latent, self.state.global_step)
        out = model(**inputs, beta=torch.tensor(beta, device=self.args.device))
        for name in ("nll", "kl"):
            self._logged.setdefault(name, []).append(float(out[name]))
        return (out["loss"], out) if return_outputs else out["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means of NLL and KL since the last record."""
        if "loss" in logs:
            logs |= {name: round(sum(values) / len(values), 4) for name, values in self._logged.items() if values}
            self._logged.clear()
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save what is trained; the frozen base stays where it is."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        save_file(
            {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}, folder / TRAINED
        )
        torch.save(self.args, folder / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load what `_save` saved."""
        found = read_tensors(Path(resume_from_checkpoint) / TRAINED)
        target = self.accelerator.unwrap_model(model or self.model)
        trained = {n: p for n, p in target.named_parameters() if p.requires_grad}
        if {n: p.shape for n, p in trained.items()} != {n: t.shape for n, t in found.items()}:
            raise TrainingError(
                f"{resume_from_checkpoint} holds other adapters; if the recipe was changed, train into a new folder"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(found[name])

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:  # type: ignore[override]
        """The figures of `summarize` over the evaluation set."""
        objective = self.accelerator.unwrap_model(self.model)
        # Every process looks at all rows: the figures are sums over latents, which a sharded loader would split.
        data = cast(Any, self.eval_dataset)
        batches = DataLoader(data, batch_size=_compared(len(data), self.args.eval_batch_size), collate_fn=collate)
        figures = evaluate_spans(objective, batches, self.latent.span_tokens, bf16=self.args.bf16)
        logs = {f"{metric_key_prefix}_{name}": round(value, 4) for name, value in figures.items()}
        self.log(logs)
        # Without this `Trainer` holds the evaluation for due still, at the end of the last epoch.
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs


def _compared(rows: int, size: int) -> int:
    """The least batch size from `size` on that leaves no row alone: a row is compared with others of its batch."""
    size = max(2, size)
    while size < rows and rows % size == 1:
        size += 1
    return size


def evaluate_spans(
    objective: LatentObjective, batches: Iterable[dict[str, torch.Tensor]], span_tokens: int, *, bf16: bool = False
) -> dict[str, float]:
    """An objective's `compare` over batches, summarised. The model is in evaluation mode meanwhile."""
    was_training = objective.training
    device = objective.model.device
    objective.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            parts = [objective.compare({k: v.to(device) for k, v in batch.items()}) for batch in batches]
    finally:
        objective.train(was_training)
    return summarize(parts, span_tokens)
