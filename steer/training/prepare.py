"""The text of a recipe: read, split, tokenised once, and kept for all stages of a run."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steer.data.corpus import SEPARATOR, TokenCorpus, is_validation, read_stories, tokenize_stories
from steer.data.dialogue import to_script
from steer.errors import CorpusError
from steer.training.recipe import DataRecipe, Recipe, SourceRecipe
from steer.training.stage import SETTINGS, changes, keep, tokenizer_digest

logger = logging.getLogger(__name__)


def check_sources(sources: Sequence[SourceRecipe], data_root: Path) -> None:
    """Read the first story of each source, before models are loaded or trained for them.

    Raises:
        CorpusError: a source is missing, cannot be read, or holds no story.
    """
    for source in dict.fromkeys((s.path, s.text_field) for s in sources):
        path, field = source
        local = data_root / path
        if next(read_stories(local if local.exists() else path, text_field=field), None) is None:
            raise CorpusError(f"{path} holds no stories; expected records separated by lines {SEPARATOR}")


def load_splits(data: DataRecipe, data_root: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Read all sources. Returns training stories, their repeats `[n]`, and validation stories (each once).

    A play belongs to the split of the story that it was made from; validation stories are prose.
    """
    train, repeats, validation = [], [], []
    for source in data.sources:
        local = data_root / source.path
        before = len(train)
        for story in read_stories(local if local.exists() else source.path, text_field=source.text_field):
            if is_validation(story, data.validation_share):
                if source.form == "prose":
                    validation.append(story)
            elif text := story if source.form == "prose" else to_script(story):
                train.append(text)
                repeats.append(source.repeat)
        logger.info("%s: %d stories", source.path, len(train) - before)
    if not train or not validation:
        raise CorpusError(
            f"{len(train)} training and {len(validation)} validation stories; both splits need some: add text"
        )
    return train, np.array(repeats), validation


def prepare_corpus(
    recipe: Recipe, tokenizer: Any, folder: Path, data_root: Path, splits: Any = None
) -> tuple[TokenCorpus, np.ndarray, TokenCorpus]:
    """Tokenise both splits once and keep them under `folder`; later calls with the same settings only load."""
    train_folder, validation_folder = folder / "train", folder / "validation"
    made_of = {"data": recipe.data.model_dump(), "tokenizer": tokenizer_digest(tokenizer)}
    if changes(folder / SETTINGS, made_of) or not (folder / "repeats.npy").is_file():
        (folder / "repeats.npy").unlink(missing_ok=True)
        train, repeats, validation = splits or load_splits(recipe.data, data_root)
        eos, vocab = tokenizer.eos_token_id, len(tokenizer)
        for stories, target in ((train, train_folder), (validation, validation_folder)):
            tokenize_stories(
                stories, lambda t: tokenizer(t, add_special_tokens=False)["input_ids"], eos_id=eos, vocab_size=vocab
            ).save(target)
        keep(folder / SETTINGS, made_of)
        np.save(folder / "repeats.npy", repeats)
    return TokenCorpus.load(train_folder), np.load(folder / "repeats.npy"), TokenCorpus.load(validation_folder)
