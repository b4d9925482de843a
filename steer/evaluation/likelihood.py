"""How likely a model finds spans with their own latent, without one, and with another span's: what latents carry.

Figures are taken of batches as sums (`compare_interleaved`, `compare_router`), and of all sums together (`summarize`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from steer.errors import TrainingError
from steer.models.adapters import ROUTER
from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.models.tokens import text_begin

ARMS = ("own", "null", "wrong")

# A role, an attention mask, and the other inputs of the base -> last hidden states `[B, T, d]`.
Run = Callable[..., Tensor]
# Context `[B, C]` (C may be 0), latents `[B, z_dim]` (None: the bare base), span `[B, S]` -> logits `[B, S, V]`.
Write = Callable[[Tensor, Tensor | None, Tensor], Tensor]


def run_of(model: LatentModel) -> Run:
    """Passes of a model's base under one role."""

    def run(role: str, mask: Tensor | None, **inputs: Any) -> Tensor:
        with model.running(role) as base:
            return backbone(base)(attention_mask=mask, use_cache=False, **inputs).last_hidden_state

    return run


def encode(model: LatentModel, ids: Tensor, mask: Tensor, *, run: Run) -> Tensor:
    """Posterior means `[B, z_dim]` of token rows `[B, S]`, padded on either side; some may be empty."""
    return model.encode_tokens(ids, counted(mask), run=run)


def counted(mask: Tensor) -> Tensor:
    """A mask `[B, S]` under which an empty row has one token: its latent is not used, but must not divide by zero."""
    mask = mask.clone()
    mask[:, 0] |= ~mask.bool().any(1)
    return mask


def interleaved_losses(
    model: LatentModel, context: Tensor, spans: Tensor, span_mask: Tensor, soft: Tensor, *, run: Run
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods of spans behind a context, each after its soft tokens.

    Args:
        model: of layout `interleaved`.
        context: `[B, C]` token ids, C may be 0.
        spans, span_mask: `[B, n, S]`; padding stands behind the story's end, where nothing that counts looks at it.
        soft: `[B, n, k, d]`.
        run: passes of the base, see `run_of`.

    Returns:
        NLL in nats `[B, n, S]` (0 where masked), and whether the likeliest token is the right one, `[B, n, S]`.
    """
    n, size = spans.shape[1:]
    k, start = soft.shape[2], context.shape[1]
    tokens = model.embed(spans)
    behind = torch.cat([soft.to(tokens.dtype), tokens], dim=2).flatten(1, 2)
    embeds = torch.cat([model.embed(context), behind], dim=1) if start else behind
    hidden = run(ROUTER, None, inputs_embeds=embeds)[:, start:].unflatten(1, (n, k + size))
    logits = model.peft.get_base_model().get_output_embeddings()(hidden[:, :, k - 1 : k + size - 1]).float()
    nll = functional.cross_entropy(logits.flatten(0, 2), spans.flatten(), reduction="none").view_as(spans)
    right = logits.argmax(-1) == spans
    return nll * span_mask, right & span_mask.bool()


def alone(spans: Tensor, span_mask: Tensor, soft: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tensors of `interleaved_losses` that take every span by itself: no context, one span per row."""
    rows = spans.shape[0] * spans.shape[1]
    one = (t.flatten(0, 1)[:, None] for t in (spans, span_mask, soft))
    return spans.new_zeros(rows, 0), *one  # type: ignore[return-value]


@torch.no_grad()
def compare_interleaved(model: LatentModel, batch: dict[str, Tensor], *, run: Run | None = None) -> dict[str, Tensor]:
    """Sums for the figures of one batch: NLL with own, null and another span's latent, in context and without.

    Accuracy; KL; moments. The encoder sees the whole spans, and latents carry no noise.

    Args:
        model: of layout `interleaved`.
        batch: see `steer.data.windows.collate`.
        run: passes of the base; by default those of `run_of`.
    """
    run = run or run_of(model)
    spans, span_mask = batch["spans"], batch["span_mask"]
    rows, n, _ = spans.shape
    alive = span_mask[:, :, 0].bool()
    mean = encode(model, spans.flatten(0, 1), span_mask.flatten(0, 1), run=run)
    z = {"own": mean, "null": None, "wrong": mean[of_other_rows(alive)]}
    out: dict[str, Tensor] = {"tokens": span_mask.sum().float(), "spans": alive.sum().float()}
    for arm, latent in z.items():
        soft = model.head.null_soft(rows * n) if latent is None else model.head.soft(latent)
        soft = soft.unflatten(0, (rows, n))
        for kind, inputs in (
            ("", (batch["context"], spans, span_mask, soft)),
            ("alone_", alone(spans, span_mask, soft)),
        ):
            nll, right = interleaved_losses(model, *inputs, run=run)
            out[f"{kind or 'nll_'}{arm}"], out[f"{kind}right_{arm}"] = nll.sum(), right.float().sum()
    return out | latent_sums(mean, alive)


def span_logits(model: LatentModel, context: Tensor, z: Tensor | None, span: Tensor) -> Tensor:
    """Teacher-forced logits `[B, S, V]` (float32) of a span by the router, `[context][z][span]`, or by the bare base.

    Args:
        model: a latent model of layout `minihf`.
        context: `[B, C]` token ids, C may be 0; the bare base then reads the begin token.
        z: `[B, z_dim]`, or None for the bare base, which is the null arm of this layout.
        span: `[B, S]` token ids.
    """
    if z is None and not context.shape[1]:
        context = context.new_full((len(span), 1), text_begin(model.tokenizer))
    soft = [] if z is None else [model.soft(z)]
    embeds = torch.cat([model.embed(context), *soft, model.embed(span[:, :-1])], dim=1)
    return model.role_logits(None if z is None else ROUTER, embeds, keep=span.shape[1]).float()


def compare_router(model: LatentModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sums of `compare_interleaved` for BigVAE's layout: each span by itself behind all tokens before it."""
    return compare_spans(model, lambda context, z, span: span_logits(model, context, z, span), batch)


@torch.no_grad()
def compare_spans(model: LatentModel, write: Write, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sums of `compare_interleaved` where each span has one latent and plain text before it.

    Args:
        model: encodes the spans, whole.
        write: gives a span's logits.
        batch: see `steer.data.windows.collate`.
    """
    spans, span_mask = batch["spans"], batch["span_mask"]
    rows, n, _ = spans.shape
    alive = span_mask[:, :, 0].bool()
    mean = model.encode_tokens(spans.flatten(0, 1), counted(span_mask.flatten(0, 1)))
    wrong = mean[of_other_rows(alive)]
    latents = {"own": mean.unflatten(0, (rows, n)), "wrong": wrong.unflatten(0, (rows, n))}
    out: dict[str, Tensor] = {"tokens": span_mask.sum().float(), "spans": alive.sum().float()}
    for prefix, kind in (("nll_", ""), ("alone_", "alone_")):
        for arm in ("own", "null", "wrong"):
            nll = right = torch.zeros((), device=spans.device)
            for i in range(n):
                before = torch.cat([batch["context"], spans[:, :i].flatten(1)], dim=1)
                z = latents[arm][:, i] if arm in latents else None
                span, mask = spans[:, i], span_mask[:, i]
                logits = write(before[:, :0] if kind else before, z, span)
                losses = functional.cross_entropy(logits.flatten(0, 1), span.flatten(), reduction="none")
                nll = nll + (losses.view_as(span) * mask).sum()
                right = right + ((logits.argmax(-1) == span) & mask.bool()).sum()
            out[f"{prefix}{arm}"], out[f"{kind}right_{arm}"] = nll, right.float()
    return out | latent_sums(mean, alive)


def latent_sums(mean: Tensor, alive: Tensor) -> dict[str, Tensor]:
    """Sums of KL and moments, float64, over latents `[rows * n, z_dim]` of spans that hold text (`alive [rows, n]`)."""
    chosen = mean[alive.flatten()].double()
    return {
        "kl": 0.5 * chosen.pow(2).sum(),
        "sum": chosen.sum(0),
        "square": chosen.pow(2).sum(0),
        "norm": chosen.norm(dim=1).sum(),
    }


def of_other_rows(alive: Tensor) -> Tensor:
    """For each span the number of a living span of another row, whose latent is the wrong one for it.

    Args:
        alive: `[rows, n]` bool, the spans that hold text.

    Returns:
        `[rows * n]` int64 on the same device; a span that is not alive has its own number.

    Raises:
        TrainingError: only one row holds text.
    """
    rows, n = alive.shape
    owner = torch.arange(rows, device=alive.device).repeat_interleave(n)
    living = alive.flatten().nonzero().squeeze(1)
    order = torch.arange(rows * n, device=alive.device)
    # The n-th one before is of another row, unless the count goes round all rows and comes back to its own.
    order[living] = living.roll(n)
    for row in owner[living][owner[order[living]] == owner[living]].unique():
        own, others = living[owner[living] == row], living[owner[living] != row]
        if not len(others):
            raise TrainingError(f"{rows} rows to compare hold text in only one; latents are compared with other rows'")
        order[own] = others[torch.arange(len(own), device=alive.device) % len(others)]
    return order


def summarize(parts: list[dict[str, Tensor]], span_tokens: int) -> dict[str, float]:
    """Figures from the sums of `compare_interleaved`.

    Returns:
        `nll_own|null|wrong` in context and `alone_own|null|wrong` without, nats per token; `accuracy` (own latent, with
        context) and `alone_accuracy`, shares; `kl`, nats per span; `active_units`, latent dimensions whose mean varies
        by more than 0.01 (Burda et al. 2016); `latent_norm`.
    """
    total = {key: torch.stack([part[key] for part in parts]).sum(0) for key in parts[0]}
    tokens, spans = float(total["tokens"]), float(total["spans"])
    variance: Tensor = total["square"] / spans - (total["sum"] / spans) ** 2
    figures = {f"nll_{arm}": float(total[f"nll_{arm}"]) / tokens for arm in ARMS}
    figures |= {f"alone_{arm}": float(total[f"alone_{arm}"]) / tokens for arm in ARMS}
    figures |= {
        "accuracy": float(total["right_own"]) / tokens,
        "alone_accuracy": float(total["alone_right_own"]) / tokens,
    }
    figures |= {
        "kl": float(total["kl"]) / spans,
        "active_units": float(torch.count_nonzero(variance > 0.01)),
        "latent_norm": float(total["norm"]) / spans,
    }
    return figures
