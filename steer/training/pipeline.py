"""All stages of a recipe in order; what is done is skipped, what was interrupted goes on."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from steer.errors import CorpusError, TrainingError
from steer.evaluation.evaluate import evaluate
from steer.evaluation.latents import latent_figures
from steer.models import checkpoint
from steer.models.config import LatentConfig
from steer.models.latent_model import LatentModel
from steer.models.quantization import load_options
from steer.sentences import full_sentences
from steer.training.autoencoder import train_autoencoder
from steer.training.base import train_base
from steer.training.card import model_card
from steer.training.chain import BEFORE_STAGES, load_chain, run_folders
from steer.training.heads import HEADS
from steer.training.heads.stage import head_settings, train_head
from steer.training.prepare import check_sources, load_splits
from steer.training.recipe import Recipe
from steer.training.stage import DONE, claim, is_done, mark_done

logger = logging.getLogger(__name__)

STAGES = ("base", "autoencoder", "reach", "prior", "package")
OPTIONAL = ("base", *HEADS)  # stages that run where the recipe has a section for them


def run_recipe(
    recipe_path: str | Path, out: Path, data_root: Path, *, stages: Sequence[str] = STAGES, report_to: str = "none"
) -> Path:
    """Run stages of a recipe. Returns the folder of the last stage's model.

    Args:
        recipe_path: a YAML file, see `steer.training.recipe`.
        out: working folder; keep it to resume.
        data_root: where the recipe's source paths start.
        stages: of `STAGES`.
        report_to: passed to `TrainingArguments` (`tensorboard`, `wandb`, ...).

    Raises:
        RecipeError, CorpusError: bad files.
        TrainingError: an earlier stage is missing, or training failed.
    """
    chain = load_chain(recipe_path)
    runs = run_folders(chain, out)
    for (_, recipe), run in zip(chain, runs, strict=True):
        if not is_done(run / "autoencoder"):
            check_sources(recipe.data.sources, data_root)
    rounds: list[tuple[Recipe, dict[str, Any]]] = []
    start: tuple[Path, str | Path] | None = None
    for (path, recipe), run in zip(chain[:-1], runs, strict=False):
        model = _run_stages(path, recipe, run, data_root, BEFORE_STAGES, start, rounds, report_to)
        rounds.append((recipe, _marks(run)))
        start = (model, _base_of(recipe, run, start))
    return _run_stages(*chain[-1], out, data_root, stages, start, rounds, report_to)


def _run_stages(
    path: Path,
    recipe: Recipe,
    out: Path,
    data_root: Path,
    stages: Sequence[str],
    start: tuple[Path, str | Path] | None,
    rounds: Sequence[tuple[Recipe, dict[str, Any]]],
    report_to: str,
) -> Path:
    """Run stages of one recipe, whose rounds before are done: see `run_recipe`.

    Args:
        path, recipe: the recipe, and its file.
        out, data_root, stages, report_to: of `run_recipe`.
        start: latent model of the round before, and its base.
        rounds: all rounds before with the marks of their stages, for the card.
    """
    result: Path = out
    base = _base_of(recipe, out, start)
    for stage in STAGES:
        if stage not in stages or (stage in OPTIONAL and getattr(recipe, stage) is None):
            continue
        logger.info("%s, stage %s", recipe.name, stage)
        if stage == "base":
            from_base = None if start is None else Path(start[1])
            result = train_base(recipe, out, data_root, start=from_base, report_to=report_to)
        elif stage == "autoencoder":
            if recipe.base is not None and not is_done(out / "base"):
                raise TrainingError(
                    f"the base model in {out / 'base'} is not finished; run stage base first (or `steer train all`)"
                )
            latents = None if start is None else start[0]
            result = train_autoencoder(recipe, out, data_root, base, start=latents, report_to=report_to)
        elif stage in HEADS:
            _need(out / "autoencoder")
            result = _train_head(stage, recipe, out, data_root, base)
        else:
            for needed in ("autoencoder", *heads_of(recipe)):
                _need(out / needed)
            result = out / "package" / recipe.name.lower()
            if PartialState().is_main_process:
                package(recipe, out, data_root, base, before=rounds, file=path.name)
    return result


def _base_of(recipe: Recipe, out: Path, start: tuple[Path, str | Path] | None) -> str | Path:
    """The base model of a run: trained there, pretrained, or the one of the run that it continues."""
    if recipe.base is None and start is not None:
        return start[1]
    return recipe.pretrained or out / "base" / "model"


def _need(stage: Path) -> None:
    """Raise TrainingError if an earlier stage is not finished."""
    if not is_done(stage):
        raise TrainingError(
            f"stage {stage.name} in {stage} is not finished; run that stage first (or `steer train all`)"
        )


def heads_of(recipe: Recipe) -> list[str]:
    """The stages of heads that a recipe has."""
    return [stage for stage in HEADS if getattr(recipe, stage) is not None]


def _train_head(stage: str, recipe: Recipe, out: Path, data_root: Path, base: str | Path) -> Path:
    """A head's stage, by one process; a fraction of the stories is enough, drawn by how often each is repeated."""
    model, settings = out / "autoencoder" / "model", getattr(recipe, stage)
    if is_done(out / stage):
        claim(out / stage, head_settings(model, settings, recipe.seed))
    elif PartialState().is_main_process:
        train, repeats, validation = load_splits(recipe.data, data_root)
        options = {"weights": repeats, "seed": recipe.seed, "base": base, **loading(recipe)}
        train_head(HEADS[stage], model, settings, train, validation, out / stage, **options)
    PartialState().wait_for_everyone()
    return out / stage / "model"


def _marks(out: Path, heads: Sequence[str] = ()) -> dict[str, Any]:
    """Contents of `done.json` of a run's stages, by the stage's name."""
    stages = [stage for stage in ("base", "autoencoder", *heads) if is_done(out / stage)]
    return {stage: json.loads((out / stage / DONE).read_text(encoding="utf-8")) for stage in stages}


def loading(recipe: Recipe) -> dict[str, Any]:
    """How a trained model is loaded: its base as it was held in training, where the recipe says that it is narrow.

    A base that was trained here goes into the package, so it is loaded whole.
    """
    load_in = recipe.autoencoder.load_in
    return {} if recipe.pretrained is None or load_in == "float32" else load_options(load_in)


def package(
    recipe: Recipe,
    out: Path,
    data_root: Path,
    base: str | Path,
    *,
    before: Sequence[tuple[Recipe, dict[str, Any]]] = (),
    file: str = "recipe.yaml",
) -> Path:
    """Write the finished model in its narrow dtype, evaluate it as written, and add its card.

    Does nothing if done, unless the recipe has got other heads, another name or another section `package` since.
    `before` and `file` are for the card, see `model_card`.
    """
    target = out / "package" / recipe.name.lower()
    heads = heads_of(recipe)
    asked = {"folder": target.name, "heads": heads, "package": recipe.package.model_dump()}
    if is_done(out / "package"):
        done = json.loads((out / "package" / DONE).read_text(encoding="utf-8"))
        if all(done.get(name, value) == value for name, value in asked.items()):
            logger.info("package: already done")
            return target
    _, _, validation = load_splits(recipe.data, data_root)
    options = {"base": base, **loading(recipe)}
    model = LatentModel.from_pretrained(str(out / "autoencoder" / "model"), **options)
    for head in heads:
        folder = out / head / "model"
        setattr(model, head, checkpoint.read_heads(folder, LatentConfig.load(folder))[head].to(model.device))
    reached = calibrate_reached(model, validation)
    model.latent_config = model.latent_config.model_copy(update={"name": recipe.name, "reached_similarity": reached})
    checkpoint.save(model, target, dtype=getattr(torch, recipe.package.dtype), with_base=isinstance(base, Path))
    written = LatentModel.from_pretrained(str(target), **loading(recipe))
    figures = _figures(written, validation, recipe.package.pairs)
    done = _marks(out, heads)
    (target / "eval.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    card = model_card(recipe, figures, done, reached, before, file)
    (target / "README.md").write_text(card, encoding="utf-8")
    mark_done(out / "package", asked)
    return target


def _figures(model: LatentModel, stories: Sequence[str], pairs: int) -> dict[str, Any]:
    """The figures of a card, as far as the stories allow: training is done by now, and must not be lost to them."""
    try:
        figures = evaluate(model, stories, pairs=pairs, fewest=2)
    except CorpusError as error:
        logger.warning("the card tells only what latents carry, not what is written from them: %s", error)
        return {"latents": latent_figures(model, stories)}
    if (found := figures.get("endings", {}).get("pairs", pairs)) < pairs:
        logger.warning("stories gave %d pairs of a context and a terminal; the recipe asks for %d", found, pairs)
    return figures


@torch.no_grad()
def calibrate_reached(
    model: LatentModel, stories: Sequence[str], *, count: int = 400, quantile: float = 0.999
) -> float | None:
    """The cosine above which a sentence counts as the arrival of a terminal.

    It is the given quantile over sentences of different unseen stories: a turn is compared sentence by sentence, so a
    chance arrival must be rare for each of them.

    Args:
        stories: unseen text.
        count: sentences compared.
        quantile: share of unrelated pairs that stay below.

    Returns:
        The cosine, or None where fewer than two stories have a sentence that fits into a span.
    """
    sentences = []
    for story in stories:
        fitting = [s.strip() for s in full_sentences(story) if 6 <= len(model.to_ids(s)) <= model.span_tokens - 2]
        if fitting:
            sentences.append(fitting[len(fitting) // 2])
        if len(sentences) == count:
            break
    if len(sentences) < 2:
        logger.warning(
            "the cosine from which a goal counts as reached is not calibrated: %d of %d stories have a sentence that "
            "fits into a span; give two or more",
            len(sentences),
            len(stories),
        )
        return None
    z = torch.nn.functional.normalize(model.encode(sentences), dim=1)
    cosines = (z @ z.T)[~torch.eye(len(z), dtype=torch.bool)]
    return round(float(torch.quantile(cosines, quantile)), 3)
