"""Stage 1: a tokenizer and a base model from scratch."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, set_seed

from steer.data.corpus import SEPARATOR, pack_blocks
from steer.data.packing import BorderedCollator, check_borders
from steer.errors import RecipeError
from steer.training.prepare import load_splits, prepare_corpus
from steer.training.recipe import BaseRecipe, Recipe
from steer.training.stage import claim, is_done, mark_done
from steer.training.trainer import CurveWriter, StageTrainer, compiles, train_or_resume, training_arguments

logger = logging.getLogger(__name__)

PAD = "<|pad|>"


def train_tokenizer(stories: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with an end token (also used as beginning of text) and a padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SEPARATOR, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


class BlockDataset(Dataset):
    """Blocks `[n, block]` as training rows; the model shifts the labels itself."""

    def __init__(self, blocks: np.ndarray) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.blocks[index].astype(np.int64))
        return {"input_ids": ids, "labels": ids}


def base_config(base: BaseRecipe, vocab_size: int, **tokens: Any) -> Any:
    """The configuration of the recipe's architecture.

    Args:
        base: its `architecture`.
        vocab_size: of the tokenizer.
        **tokens: ids of special tokens.

    Raises:
        RecipeError: it names no `model_type`, or transformers does not take it.
    """
    fields = dict(base.architecture)
    kind = fields.pop("model_type", None)
    if not kind:
        raise RecipeError("base.architecture needs `model_type` (llama, gpt_neox, ...)")
    try:
        return AutoConfig.for_model(kind, **fields, vocab_size=vocab_size, **tokens)
    except Exception as error:  # each layer of the library raises a kind of its own
        raise RecipeError(f"base.architecture is not accepted by transformers: {error}") from error


def build_base(base: BaseRecipe, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A model with random weights from the recipe's architecture."""
    config = base_config(
        base,
        len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def continued_base(base: BaseRecipe, start: Path) -> Any:
    """The base model in `start`, in float32, to be trained on.

    Raises:
        RecipeError: it is not of the recipe's architecture.
    """
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, trust_remote_code=False)
    for name, value in base.architecture.items():
        found = getattr(model.config, name, None)
        if found != value:
            raise RecipeError(f"base.architecture has {name} {value!r}, the model that is continued has {found!r}")
    return model


def train_base(
    recipe: Recipe, out: Path, data_root: Path, *, start: Path | None = None, report_to: str = "none"
) -> Path:
    """Train tokenizer and base model of a recipe, or go on, or do nothing if done.

    Args:
        recipe: with a section `base`.
        out: folder of the run.
        data_root: where the recipe's source paths start.
        start: folder of a base model that is trained on, with its tokenizer; else weights are random.
        report_to: passed to `TrainingArguments`.

    Returns:
        The folder of the base model.

    Raises:
        RecipeError: the architecture is not accepted, or not that of `start`.
        CorpusError, TrainingError: bad text; training failed; the stage was begun with other settings.
    """
    assert recipe.base is not None
    stage, model_folder = out / "base", out / "base" / "model"
    settings = {"seed": recipe.seed, "data": recipe.data.model_dump(), "base": recipe.base.model_dump()}
    same = claim(stage, settings)
    if is_done(stage):
        logger.info("base: already done")
        return model_folder
    stage.mkdir(parents=True, exist_ok=True)
    splits = None
    with PartialState().main_process_first():
        if not (same and (model_folder / "tokenizer.json").is_file()):
            if start is None:
                splits = load_splits(recipe.data, data_root)
                train_tokenizer(splits[0], recipe.base.vocab_size).save_pretrained(model_folder)
            else:
                AutoTokenizer.from_pretrained(start, trust_remote_code=False).save_pretrained(model_folder)
        tokenizer = AutoTokenizer.from_pretrained(model_folder, trust_remote_code=False)
        train, repeats, validation = prepare_corpus(recipe, tokenizer, out / "corpus", data_root, splits)
    generator = np.random.default_rng(recipe.seed)
    blocks = pack_blocks(train, recipe.base.block, generator, repeats)
    held_out = pack_blocks(validation, recipe.base.block, np.random.default_rng(0))[:64]
    logger.info("base: %d training blocks of %d tokens", len(blocks), recipe.base.block)

    set_seed(recipe.seed)
    model = build_base(recipe.base, tokenizer) if start is None else continued_base(recipe.base, start)
    parameters = sum(p.numel() for p in model.parameters())
    if compiles(recipe.base.train):
        model.compile()
    collator = None
    if recipe.base.packing == "bordered":
        check_borders(model, tokenizer.eos_token_id)
        collator = BorderedCollator(tokenizer.eos_token_id)
    trainer = StageTrainer(
        train_recipe=recipe.base.train,
        model=model,
        args=training_arguments(recipe.base.train, stage, seed=recipe.seed, report_to=report_to),
        train_dataset=BlockDataset(blocks),
        eval_dataset=BlockDataset(held_out),
        data_collator=collator,
        callbacks=[CurveWriter(stage / "curve.jsonl")],
    )
    metrics = train_or_resume(trainer, stage)
    if trainer.is_world_process_zero():
        model.config.use_cache = True  # `Trainer` switched it off
        model.save_pretrained(model_folder)
        mark_done(stage, {**metrics, "parameters": parameters, "tokens_per_epoch": int(blocks.size)})
    PartialState().wait_for_everyone()
    return model_folder
