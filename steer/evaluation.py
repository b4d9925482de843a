"""The figures of a latent model: how much its latents carry, and how often guided endings arrive."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steer.errors import CorpusError
from steer.guidance import Pull
from steer.guided import write_guided
from steer.judge import Judge, judge_folder
from steer.pairs import Pair, make_pairs
from steer.sampling import SamplingConfig
from steer.schedules import make_schedule

GROUP = 100

Progress = Callable[[str, int, int], None]


def latent_figures(
    model: Any,
    stories: Sequence[str],
    *,
    rows: int = 128,
    spans: int = 6,
    context: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """NLL with own, null and another span's latent, in context and without; reconstruction accuracy; KL; active units.

    See `steer.training.objective.summarize` for the names. In the `minihf` layout each span stands alone behind its
    context, and the null arm is the bare base without a latent, as in MiniHF's guidance.

    Args:
        model: a `LatentModel`.
        stories: unseen text.
        rows: windows of `spans` spans.
        spans, context: spans per window, tokens before it.
        seed: chooses the windows.
        progress: called with what is measured, batches done, and batches in all.
    """
    from steer.training.corpus import tokenize_stories
    from steer.training.objective import SpanObjective, summarize
    from steer.training.spans import SpanDataset, collate, sentence_ends

    if not stories:
        raise CorpusError("no stories to evaluate on")
    tokenizer = model.tokenizer
    corpus = tokenize_stories(
        stories,
        lambda t: tokenizer(t, add_special_tokens=False)["input_ids"],
        eos_id=tokenizer.eos_token_id,
        vocab_size=len(tokenizer),
    )
    data = SpanDataset(
        corpus,
        None,
        length=rows,
        spans=spans,
        span_tokens=model.span_tokens,
        context_tokens=context,
        eos_id=tokenizer.eos_token_id,
        partial_share=0.0,
        ends=sentence_ends(tokenizer),
        seed=seed,
    )
    compare = SpanObjective(model, context_lengths=(context,)).eval().compare
    if model.latent_config.layout == "minihf":
        compare = functools.partial(_compare_minihf, model)
    parts, size = [], 8
    for start in range(0, rows, size):
        batch = collate([data[i] for i in range(start, min(rows, start + size))])
        parts.append(compare({k: v.to(model.device) for k, v in batch.items()}))
        if progress:
            progress("latents", min(rows, start + size), rows)
    return summarize(parts, model.span_tokens)


@torch.no_grad()
def _compare_minihf(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sums of `SpanObjective.compare` for BigVAE's layout, on the first span of each window."""
    context, spans, mask = batch["context"], batch["spans"][:, 0], batch["span_mask"][:, 0]
    mean = model.encode_tokens(spans, mask)
    out: dict[str, Tensor] = {"tokens": mask.sum().float(), "spans": torch.tensor(float(len(spans)))}
    begin = context.new_full((len(spans), 1), model.tokenizer.bos_token_id or model.tokenizer.eos_token_id)
    for prefix, visible in (("", context), ("alone_", context[:, :0])):
        for arm, z in (("own", mean), ("null", None), ("wrong", mean.roll(1, 0))):
            if z is None:
                before = visible if visible.shape[1] else begin
                logits = model.role_logits(None, model.embed(torch.cat([before, spans], dim=1)))
            else:
                logits = model.router_logits(visible, z, spans)
            logits = logits[:, -spans.shape[1] - 1 : -1].float()
            nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), spans.flatten(), reduction="none")
            out[f"{prefix or 'nll_'}{arm}"] = (nll.view_as(spans) * mask).sum()
            right = (logits.argmax(-1) == spans) & mask.bool()
            out[f"{prefix}right_{arm}"] = right.float().sum()
    double = mean.double()
    return out | {
        "kl": 0.5 * double.pow(2).sum(),
        "sum": double.sum(0),
        "square": double.pow(2).sum(0),
        "norm": double.norm(dim=1).sum(),
    }


def write_endings(
    model: Any,
    pairs: Sequence[Pair],
    *,
    schedule: str | None,
    spans: int = 6,
    seed: int = 0,
    batch: int = 20,
    sampling: SamplingConfig | None = None,
    scale: float | None = None,
    progress: Progress | None = None,
    **options: float,
) -> list[str]:
    """The last written span of each pair, unguided (`schedule=None`) or pulled to the pair's terminal."""
    z = model.encode([p.terminal for p in pairs], long="truncate") if schedule else None
    endings: list[str] = []
    for start in range(0, len(pairs), batch):
        chosen = pairs[start : start + batch]
        pulls = (
            []
            if z is None or schedule is None
            else [Pull(z[start : start + batch], make_schedule(schedule, spans, **options))]
        )
        seeds = [seed * 1_000_003 + start + i for i in range(len(chosen))]
        written = write_guided(
            model, [p.context for p in chosen], pulls=pulls, spans=spans, seeds=seeds, sampling=sampling, scale=scale
        )
        endings += [next((s for s in reversed(w.spans) if s.strip()), "") for w in written]
        if progress:
            progress(
                "unguided endings" if schedule is None else f"{schedule} endings",
                min(len(pairs), start + batch),
                len(pairs),
            )
    return endings


def arrival(endings: Sequence[str], terminals: Sequence[str], embed: Callable[[Sequence[str]], Tensor]) -> np.ndarray:
    """Ranks `[n]` (1 = nearest) of the right terminal for each ending, among the terminals of its group of 100."""
    ends, goals = embed(endings), embed(terminals)
    ranks = []
    for start in range(0, len(endings), GROUP):
        scores = ends[start : start + GROUP] @ goals[start : start + GROUP].T
        right = scores.diagonal()[:, None]
        ranks.append((scores > right).sum(1) + 1)
    return torch.cat(ranks).numpy()


def share_with_interval(hits: np.ndarray, *, seed: int = 0, draws: int = 10_000) -> tuple[float, float, float]:
    """A share and its 95 % bootstrap interval."""
    rng = np.random.default_rng(seed)
    means = hits[rng.integers(0, len(hits), (draws, len(hits)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(hits.mean()), float(low), float(high)


def evaluate(
    model: Any,
    stories: Sequence[str],
    *,
    pairs: int = GROUP,
    spans: int = 6,
    seed: int = 0,
    schedule: str = "bridge",
    sampling: SamplingConfig | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All figures of `steer eval`.

    Args:
        model: a `LatentModel`.
        stories: text that the model was not trained on.
        pairs: context and terminal pairs for the endings; right terminals are ranked among each 100.
        spans: spans written per pair.
        seed: of windows, pairs and writing.
        schedule: of the guided arm.
        sampling: settings; by default temperature 0.7.
        judge: the embedder; by default the installed extra, and without it the endings are left out.
        progress: called with what is measured, how much is done, and how much there is.

    Returns:
        `latents` (see `latent_figures`), and `endings`: for each arm the share of endings whose nearest terminal among
        100 is the right one with
        its 95 % interval (`nearest`), and the share within the nearest five (`nearest_five`).
    """
    figures: dict[str, Any] = {"latents": latent_figures(model, stories, seed=seed, progress=progress)}
    if judge is None and judge_folder() is None:
        return figures
    judge = judge or Judge()
    cut = make_pairs(model, stories, pairs, seed=seed)
    sampling = sampling or SamplingConfig(temperature=0.7)
    endings: dict[str, Any] = {"pairs": pairs, "spans": spans, "schedule": schedule}
    for arm, name in (("unguided", None), ("annealed", schedule)):
        texts = write_endings(model, cut, schedule=name, spans=spans, seed=seed, sampling=sampling, progress=progress)
        ranks = arrival(texts, [p.terminal for p in cut], judge.embed)
        endings[arm] = {"nearest": share_with_interval(ranks == 1), "nearest_five": share_with_interval(ranks <= 5)}
    figures["endings"] = endings
    return figures
