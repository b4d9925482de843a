"""Stage 2: encoder, router and heads together, on a frozen base."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import set_seed

from steer.data.windows import SpanDataset, collate, sentence_ends
from steer.errors import TrainingError
from steer.heads.stored import read_tensors
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from steer.models.quantization import load_options
from steer.training.base import prepare_corpus
from steer.training.fingerprint import claim
from steer.training.objectives.interleaved import SpanObjective, summarize
from steer.training.recipe import LatentRecipe, Recipe
from steer.training.stage import (
    CurveWriter,
    StageTrainer,
    compiles,
    is_done,
    mark_done,
    train_or_resume,
    training_arguments,
)

logger = logging.getLogger(__name__)

TRAINED = "trained.safetensors"


def beta_at(recipe: LatentRecipe, share: float) -> float:
    """The weight of the KL term after a share of the steps.

    2 % of it at first, rising linearly between `beta_start` and `beta_full`.
    """
    rise = (share - recipe.beta_start) / max(recipe.beta_full - recipe.beta_start, 1e-9)
    return recipe.beta * min(1.0, max(0.02, rise))


class AutoencoderTrainer(StageTrainer):
    """`Trainer` that gives the loss its beta, and evaluates with own, null and wrong latents.

    Args:
        beta: the weight of the KL term at a step.
        span_tokens: S.
        **kwargs: see `StageTrainer`.
    """

    def __init__(self, *, beta: Callable[[int], float], span_tokens: int, **kwargs: Any) -> None:
        self.beta, self.span_tokens = beta, span_tokens
        self._logged: dict[str, list[float]] = {}
        super().__init__(**kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective at the current step."""
        beta = self.beta(self.state.global_step)
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
        figures = evaluate_spans(objective, batches, self.span_tokens, bf16=self.args.bf16)
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


def evaluate_spans(objective: Any, batches: Any, span_tokens: int, *, bf16: bool = False) -> dict[str, float]:
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


def trainable(model: LatentModel) -> Iterator[torch.nn.Parameter]:
    """Switch on the gradients of adapters and heads, and yield them."""
    for name, parameter in model.peft.named_parameters():
        parameter.requires_grad_("lora_" in name)
    model.head.requires_grad_(True)
    yield from (p for p in model.parameters() if p.requires_grad)


def start_from(model: LatentModel, start: LatentModel) -> None:
    """Copy what is trained, adapters and heads, from another model; the base may have other weights.

    Raises:
        TrainingError: the two differ in what is trained.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: p for name, p in start.named_parameters() if name in wanted}
    if {name: p.shape for name, p in wanted.items()} != {name: p.shape for name, p in found.items()}:
        raise TrainingError(
            "the recipe's encoder and router differ from those that it continues; keep z_dim, soft_tokens, lora_rank "
            "and the base's architecture, or leave out `continues`"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])


def latent_settings(recipe: Recipe) -> dict[str, Any]:
    """What the result of the autoencoder stage depends on, see `steer.training.fingerprint.claim`."""
    named = {"seed": recipe.seed, "pretrained": recipe.pretrained, "data": recipe.data.model_dump()}
    return {**named, "autoencoder": recipe.autoencoder.model_dump()}


def train_autoencoder(
    recipe: Recipe,
    out: Path,
    data_root: Path,
    base: str | Path,
    *,
    start: tuple[Path, str | Path] | None = None,
    report_to: str = "none",
) -> Path:
    """Train the autoencoder stage of a recipe, or go on, or do nothing if done.

    Args:
        recipe: its section `autoencoder`.
        out: folder of the run.
        data_root: where the recipe's source paths start.
        base: folder or hub id of the base model.
        start: a latent model and its base, whose adapters and heads are trained on; else they are random.
        report_to: passed to `TrainingArguments`.

    Returns:
        The folder of the trained model (float32).
    """
    latent, stage = recipe.autoencoder, out / "autoencoder"
    assert isinstance(latent, LatentRecipe)
    target = stage / "model"
    claim(stage, latent_settings(recipe))
    if is_done(stage):
        logger.info("autoencoder: already done")
        return target
    stage.mkdir(parents=True, exist_ok=True)
    set_seed(recipe.seed)
    longest = max(latent.context_lengths)
    model = fresh_model(
        base,
        name=recipe.name,
        span_tokens=latent.span_tokens,
        z_dim=latent.z_dim,
        soft_tokens=latent.soft_tokens,
        rank=latent.lora_rank,
        alpha=latent.lora_alpha,
        max_context=latent.max_context,
        tied=latent.tied_start,
        seed=recipe.seed,
        **load_options(latent.load_in, torch.bfloat16 if latent.train.bf16 else torch.float32),
    )
    parameters = sum(p.numel() for p in trainable(model))
    if start is not None:
        start_from(model, LatentModel.from_pretrained(str(start[0]), base=start[1], dtype="float32"))
    with PartialState().main_process_first():
        train, repeats, validation = prepare_corpus(recipe, model.tokenizer, out / "corpus", data_root)
    shared: dict[str, Any] = {
        "spans": latent.spans,
        "span_tokens": latent.span_tokens,
        "context_tokens": longest,
        "eos_id": model.tokenizer.eos_token_id,
        "ends": sentence_ends(model.tokenizer),
    }
    rows = latent.train.steps * latent.train.batch_size * latent.train.gradient_accumulation_steps
    rows *= PartialState().num_processes
    arguments = training_arguments(latent.train, stage, seed=recipe.seed, report_to=report_to)
    objective = SpanObjective(
        model,
        context_lengths=latent.context_lengths,
        isolated_share=latent.isolated_share,
        null_share=latent.null_share,
        null_sequence_share=latent.null_sequence_share,
        noise=latent.noise,
        seed=recipe.seed,
        compiled=compiles(latent.train),
    )
    trainer = AutoencoderTrainer(
        beta=lambda step: beta_at(latent, step / latent.train.steps),
        span_tokens=latent.span_tokens,
        train_recipe=latent.train,
        model=objective,
        args=arguments,
        train_dataset=SpanDataset(
            train, repeats, length=rows, partial_share=latent.partial_share, seed=recipe.seed, **shared
        ),
        eval_dataset=SpanDataset(validation, None, length=96, partial_share=0.0, seed=0, **shared),
        data_collator=collate,
        callbacks=[CurveWriter(stage / "curve.jsonl")],
    )
    metrics = train_or_resume(trainer, stage)
    if not trainer.is_world_process_zero():
        PartialState().wait_for_everyone()
        return target
    model.eval()
    config = model.latent_config.model_copy(update={"latent_norm": metrics["eval_latent_norm"]})
    model.latent_config = config
    model.save_pretrained(target)
    mark_done(stage, {**metrics, "parameters": parameters})
    PartialState().wait_for_everyone()
    return target
