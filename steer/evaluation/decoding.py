"""Spans of stories, and text written from latents."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steer.errors import CorpusError
from steer.models.adapters import DECODER, ROUTER
from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.models.likelihood import mean_logprobs
from steer.writing.classifier_free import Step
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from steer.writing.span_loop import greedy, write_span
from steer.writing.stream import Stream
from steer.writing.writer import open_writer

Ids = tuple[int, ...]
Embed = Callable[[Sequence[str]], Tensor]  # texts -> unit vectors `[n, d]`
Progress = Callable[[str, int, int], None]  # told what is measured, rows done, and rows in all

GREEDY = SamplingConfig(temperature=0.0)
ANYTHING = Limits(plays=True)
BATCH = 32  # rows written at once


def cut_spans(model: LatentModel, stories: Sequence[str], *, most: int = 16) -> list[list[Ids]]:
    """The first `most` spans of S tokens of each story, from its beginning; what is left over is dropped."""
    size = model.span_tokens
    rows = [model.to_ids(story)[: most * size] for story in stories]
    return [[tuple(ids[i : i + size]) for i in range(0, len(ids) - size + 1, size)] for ids in rows]


def draw_spans(cut: Sequence[Sequence[Ids]], count: int, rng: np.random.Generator) -> list[Ids]:
    """One span of each of up to `count` stories, stories and spans drawn at random.

    Args:
        cut: of `cut_spans`.
        count: spans wanted; fewer come where fewer stories hold a span.
        rng: draws them.
    """
    chosen = [int(i) for i in rng.permutation(len(cut)) if cut[int(i)]][:count]
    return [cut[i][int(rng.integers(len(cut[i])))] for i in chosen]


def read_in_parts(
    stories: Sequence[str],
    read: Callable[..., dict[str, Tensor]],
    *,
    limit: int,
    seed: int,
    what: str,
    progress: Progress | None,
) -> tuple[list[str], list[dict[str, Tensor]]]:
    """Some stories, drawn at random, and what is read in them, 50 at a time.

    Args:
        stories: texts.
        read: from some of them, and `first`, the number of the first, to tensors.
        limit: stories at most.
        seed: of the draw.
        what, progress: told with stories done and stories in all.

    Raises:
        CorpusError: there are no stories.
    """
    if not stories:
        raise CorpusError(f"no stories to evaluate on ({what})")
    texts = [stories[int(i)] for i in np.random.default_rng((seed, 0)).permutation(len(stories))[:limit]]
    parts = []
    for first in range(0, len(texts), 50):
        parts.append(read(texts[first : first + 50], first=first))
        if progress:
            progress(what, min(first + 50, len(texts)), len(texts))
    return texts, parts


def decode(
    model: LatentModel,
    z: Tensor,
    contexts: Sequence[Sequence[int]] | None = None,
    *,
    what: str = "decoding",
    progress: Progress | None = None,
) -> list[Ids]:
    """The likeliest span, token by token, that the router writes from each latent.

    Args:
        z: `[n, z_dim]`.
        contexts: visible token ids per row. By default there is none at all, not even the token with which a text
            begins, as for the isolated spans of training: behind that token the router begins a story.
        what, progress: told with rows done and rows in all.

    Returns:
        Up to S token ids per row, cut behind the end of a story.
    """
    rows: list[Ids] = []
    for start in range(0, len(z), BATCH):
        chunk = z[start : start + BATCH]
        if contexts is None:
            rows += _decode_alone(model, chunk)
        else:
            seeds = [0] * len(chunk)  # greedy writing draws nothing
            writer = open_writer(
                model, contexts[start : start + BATCH], seeds=seeds, spans=1, sampling=GREEDY, limits=ANYTHING
            )
            rows += [span.ids for span in writer.write(chunk)]
        if progress:
            progress(what, len(rows), len(z))
    return rows


@torch.inference_mode()
def _decode_alone(model: LatentModel, z: Tensor) -> list[Ids]:
    """`decode` without context: a writer begins with a token, so this steps without one."""
    soft = model.soft(z)
    stream = Stream(model, ROUTER, [[]] * len(z), soft.shape[1] + model.span_tokens)
    return _likeliest(model, stream.step(soft))


def _likeliest(model: LatentModel, step: Step) -> list[Ids]:
    written = write_span(step, greedy, size=model.span_tokens, end=model.tokenizer.eos_token_id)
    return [span.ids for span in written.spans]


@torch.no_grad()
def decode_stage_one(
    model: LatentModel, z: Tensor, *, what: str = "decoding", progress: Progress | None = None
) -> list[Ids]:
    """The likeliest span that BigVAE's stage-1 decoder writes from each latent, its context dropped as in training.

    The layout is `[z][S slots of context][span]`. MiniHF's `train_vae_overlap.py` drops a context by zeroing its ids
    and its mask; the slots keep their positions, and the last of them predicts the first token. A decoder that is given
    no slots at all writes at positions where it was never trained.

    Args:
        model: a `LatentModel` with a `decoder` adapter.
        z: `[n, z_dim]`.
        what, progress: see `decode`.

    Returns:
        See `decode`.
    """
    rows: list[Ids] = []
    for start in range(0, len(z), BATCH):
        with model.running(DECODER) as base:
            rows += _likeliest(model, _stage_one_step(model, base, model.soft(z[start : start + BATCH])))
        if progress:
            progress(what, len(rows), len(z))
    return rows


def _stage_one_step(model: LatentModel, base: Any, soft: Tensor) -> Step:
    """A step of the stage-1 decoder, which computes everything again for each token: `[z][S slots][tokens]`."""
    slots = torch.zeros(len(soft), model.span_tokens, dtype=torch.long, device=model.device)
    seen = torch.cat([torch.ones_like(slots[:, :1]), slots, torch.ones_like(slots)], dim=1)
    places = torch.arange(seen.shape[1], device=model.device)[None].expand_as(seen)
    tokens = slots

    def step(ids: Tensor | None) -> Tensor:
        nonlocal tokens
        if ids is not None:
            tokens = torch.cat([tokens, ids[:, None]], dim=1)
        embeds = torch.cat([soft, model.embed(tokens)], dim=1)
        length = embeds.shape[1]
        out = backbone(base)(
            inputs_embeds=embeds,
            attention_mask=seen[:, :length],
            position_ids=places[:, :length],
            use_cache=False,
        )
        return base.get_output_embeddings()(out.last_hidden_state[:, -1])

    return step


def nlls(model: LatentModel, contexts: Sequence[Sequence[int]], rows: Sequence[Ids]) -> np.ndarray:
    """Mean NLL `[n]` of rows behind their contexts under the bare base, nats per token; float64."""
    return -mean_logprobs(model, contexts, rows).double().numpy()


def encoder_embed(model: LatentModel) -> Embed:
    """The model's own encoder as an `Embed`: unit latents of texts, of each its first span.

    For where no judge is installed: the encoder finds its own spans more alike than an independent reader would.
    """

    def embed(texts: Sequence[str]) -> Tensor:
        # Not `model.encode`, which rightly refuses what a poor model may well write: nothing, or control characters.
        rows = [model.tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"] for text in texts]
        spans = [ids[: model.span_tokens] or [model.tokenizer.eos_token_id] for ids in rows]
        return torch.nn.functional.normalize(model.encode_ids(spans), dim=1)

    return embed
