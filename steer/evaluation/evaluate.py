"""The figures of a latent model: how much its latents carry, and how often guided endings arrive."""

from collections.abc import Sequence
from typing import Any

from steer.data.pairs import make_pairs
from steer.evaluation.decoding import ANYTHING, Progress
from steer.evaluation.endings import GROUP, ending_figures
from steer.evaluation.judge import Judge, judge_folder
from steer.evaluation.latents import latent_figures, quality_figures
from steer.evaluation.prior import prior_figures
from steer.evaluation.reach import reach_figures
from steer.evaluation.scripts import play_figures
from steer.models.latent_model import LatentModel
from steer.writing.config import WritingConfig
from steer.writing.sampling import SamplingConfig


def evaluate(
    model: LatentModel,
    stories: Sequence[str],
    *,
    pairs: int = GROUP,
    fewest: int | None = None,
    spans: int = 6,
    seed: int = 0,
    sampling: SamplingConfig | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All figures of `steer eval`.

    Args:
        stories: text that the model was not trained on.
        pairs: context and terminal pairs for the endings, and as many spans, paths and groups for the quality of
            latents; right terminals are ranked among each 100.
        fewest: so many pairs, at least two, will do where stories give no more; by default `pairs`.
        spans: spans written per pair.
        seed: of windows, pairs and writing.
        sampling: settings; by default temperature 0.7 and top-p 0.95.
        judge: the embedder; by default the installed extra. Without it the endings are left out, and the quality of
            latents is told by the model's own encoder.
        progress: called with what is measured, how much is done, and how much there is.

    Returns:
        `latents` (see `latent_figures`), `quality` (see `steer.evaluation.latents.quality_figures`), and where there is
        what they need: `plays` (`steer.evaluation.scripts.play_figures`), `reach`
        (`steer.evaluation.reach.reach_figures`), `prior` (`steer.evaluation.prior.prior_figures`) and `endings`
        (`steer.evaluation.endings.ending_figures`).

    Raises:
        CorpusError: too few stories are long enough for the pairs, or none for a span.
    """
    cut = make_pairs(model, stories, pairs, seed=seed, fewest=fewest)  # first, so that too little text is told at once
    if judge is None and judge_folder() is not None:
        judge = Judge()
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    figures: dict[str, Any] = {
        "latents": latent_figures(model, stories, **options),
        "quality": quality_figures(model, stories, cut, None if judge is None else judge.embed, **options),
    }
    if (plays := play_figures(model, stories, count=len(cut), **options)) is not None:
        figures["plays"] = plays
    if model.reach is not None:
        figures["reach"] = reach_figures(model, stories, **options)
    if model.prior is not None:
        figures["prior"] = prior_figures(model, stories, **options)
    if judge is not None:
        config = WritingConfig(spans=spans, sampling=sampling or SamplingConfig(), guidance_scale=1.0, limits=ANYTHING)
        figures["endings"] = ending_figures(model, cut, judge.embed, config, **options)
    return figures
