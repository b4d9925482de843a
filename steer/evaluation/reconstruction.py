"""Reconstruction by generation: what is written from a span's own latent, with nothing else to read."""

from collections.abc import Callable, Sequence
from typing import Any

from steer.evaluation.bleu import corpus_bleu
from steer.evaluation.decoding import Embed, Ids, Progress, decode, decode_stage_one
from steer.evaluation.statistics import nearest_own, share_with_interval
from steer.models.adapters import DECODER
from steer.models.latent_model import LatentModel


def reconstruction_figures(
    model: LatentModel, spans: Sequence[Ids], embed: Embed, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Encode spans, write them again greedily from their latents with empty context, and compare.

    Teacher-forced token accuracy asks for the next token behind the right ones; here every token stands behind what
    was written.

    Args:
        spans: unseen token rows of one span each.

    Returns:
        `spans`, and for `router`, and `decoder` where the model has one (MiniHF's stage 1): corpus `bleu` in [0, 1];
        mean cosine of a written span and its original (`similarity`), and of an original and another one
        (`unrelated`); the share whose nearest original among all is its own, with its interval (`nearest`).
    """
    z = model.encode_ids(spans)
    originals = [model.to_text(ids) for ids in spans]
    wanted = embed(originals)
    unrelated = float((wanted * wanted.roll(1, 0)).sum(1).mean())
    ways: dict[str, Callable[..., list[Ids]]] = {"router": decode}
    if DECODER in model.peft.peft_config:
        ways["decoder"] = decode_stage_one
    figures: dict[str, Any] = {"spans": len(spans)}
    for role, write in ways.items():
        texts = [model.to_text(ids) for ids in write(model, z, what=f"{role}: reconstruction", progress=progress)]
        scores = embed(texts) @ wanted.T
        figures[role] = {
            "bleu": corpus_bleu(texts, originals),
            "similarity": float(scores.diagonal().mean()),
            "unrelated": unrelated,
            "nearest": share_with_interval(nearest_own(scores)),
        }
    return figures
