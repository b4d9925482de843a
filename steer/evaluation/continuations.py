"""What the draft head learns from: hidden states of the router in stories, and the latents of what follows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steer.models.base import backbone
from steer.models.latent_model import LatentModel
from steer.writing.proposals import read_state

NULL_SHARE = 0.25  # of the spans before a place; as in a text of which some spans were not steered
SHORTEST = 16  # tokens of context, at least


@dataclass(frozen=True)
class Continuations:
    """Places in stories and what follows them, P of them, grouped by story.

    Attributes:
        states: `[P, d + z_dim]` float32, what a draft head reads, see `encode_continuations`.
        latents: `[P, z_dim]` float32, of the S tokens that follow.
        story: `[P]` int64, rising.
    """

    states: Tensor
    latents: Tensor
    story: np.ndarray

    def rows(self, chosen: slice) -> "Continuations":
        """Some of them."""
        return Continuations(self.states[chosen], self.latents[chosen], self.story[chosen])


def join_continuations(parts: Sequence[dict[str, Tensor]]) -> Continuations:
    """One `Continuations` of what `encode_continuations` gave, in the order of the stories."""
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("states", "latents", "story")}
    return Continuations(joined["states"].float(), joined["latents"].float(), joined["story"].numpy())


@dataclass(frozen=True)
class Row:
    """A stretch of one story: context ids, and n spans of S ids behind it `[n, S]`; `null`, bool `[n]`."""

    context: np.ndarray
    spans: np.ndarray
    null: np.ndarray


def cut_row(
    ids: np.ndarray, span: int, rng: np.random.Generator, *, spans: int, longest: int, begin: int
) -> Row | None:
    """A stretch of a story that begins anywhere: a context of random length, and whole spans. None in a short story.

    Args:
        ids: `[n]` int64 token ids, without an end token.
        span: S.
        rng: makes all choices.
        spans: at most so many.
        longest: tokens of context, at most.
        begin: token that stands for the context where there is none, see `Layout.begin`.
    """
    if len(ids) < 2 * span:
        return None
    start = int(rng.integers(0, len(ids) - 2 * span + 1))
    count = min(spans, (len(ids) - start) // span)
    # Short contexts as often as long ones, in octaves: the head serves openings and long stories.
    most = round(2 ** rng.uniform(np.log2(min(SHORTEST, longest)), np.log2(longest)))
    context = ids[max(0, start - most) : start]
    return Row(
        context if len(context) else np.array([begin]),
        ids[start : start + count * span].reshape(count, span),
        rng.random(count) < NULL_SHARE,
    )


@torch.no_grad()
def encode_continuations(
    model: LatentModel, stories: Sequence[str], *, seed: int = 0, first: int = 0, spans: int = 8, batch_size: int = 16
) -> dict[str, Tensor]:
    """Cut stories, encode their spans, and read the state before each. Story i depends on `(seed, first + i)` only.

    The state is what a writer has at hand when it asks for a draft, see `steer.heads.prior.read_state`. In the
    `interleaved`
    layout earlier spans stand behind their own latents or (a quarter of them) behind the null latent, as in texts that
    were steered here and there.

    Args:
        stories: texts.
        seed: of the cuts.
        first: number of the first story.
        spans: per story, at most.
        batch_size: rows per forward pass.

    Returns:
        `states` `[P, d + z_dim]` and `latents` `[P, z_dim]` float32, `story` `[P]` int64: see `Continuations`.
    """
    config, begin, rows, owners = model.latent_config, model.layout.begin(model.tokenizer), [], []
    for number, story in enumerate(stories):
        ids = np.array(model.to_ids(story), np.int64)
        rng = np.random.default_rng((seed, first + number))
        row = cut_row(ids, model.span_tokens, rng, spans=spans, longest=config.max_context, begin=begin)
        if row is not None:
            rows.append(row)
            owners += [first + number] * len(row.spans)
    if not rows:
        return {
            "states": torch.zeros(0, config.base.hidden_size + config.z_dim),
            "latents": torch.zeros(0, config.z_dim),
            "story": torch.zeros(0, dtype=torch.long),
        }
    latents = model.encode_ids([span.tolist() for row in rows for span in row.spans])
    bounds = np.cumsum([0, *(len(row.spans) for row in rows)])
    hidden = torch.zeros(len(latents), config.base.hidden_size)
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].context), len(rows[i].spans)))
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        found = read_hidden(model, [rows[i] for i in chosen], [latents[bounds[i] : bounds[i + 1]] for i in chosen])
        for i, state in zip(chosen, found, strict=True):
            hidden[bounds[i] : bounds[i + 1]] = state
    before = [ids.tolist() for row in rows for ids in (row.context, *row.spans[:-1])]
    states = read_state(model, hidden, before)
    return {"states": states, "latents": latents, "story": torch.tensor(owners, dtype=torch.long)}


@torch.no_grad()
def read_hidden(model: LatentModel, rows: Sequence[Row], latents: Sequence[Tensor]) -> list[Tensor]:
    """Hidden states `[n, d]` float32 on the CPU before each of a row's n spans, from one pass for all rows.

    All null latents of a row stand behind its text, each with the positions and the sight that it has before its span.

    Args:
        rows: stretches of stories.
        latents: `[n, z_dim]` of each row's spans.
    """
    interleaved = model.layout.keeps_latents
    pieces = [
        _interleaved(model, row, z) if interleaved else _plain(model, row) for row, z in zip(rows, latents, strict=True)
    ]
    width = max(len(embeds) for embeds, *_ in pieces)
    device = model.device
    embeds = torch.zeros(len(rows), width, pieces[0][0].shape[1], dtype=model.dtype, device=device)
    positions = torch.zeros(len(rows), width, dtype=torch.long, device=device)
    # A padded place sees itself, so that softmax stays finite.
    seen = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1, 1)
    for r, (own, place, sight, _) in enumerate(pieces):
        embeds[r, : len(own)], positions[r, : len(own)] = own, place.to(device)
        seen[r, 0, : len(own), : len(own)] = sight
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min).to(device)
    inputs = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions, "use_cache": False}
    with model.running(model.layout.unguided_role) as base:
        hidden = backbone(base)(**inputs).last_hidden_state
    return [hidden[r, torch.tensor(places)].float().cpu() for r, (_, _, _, places) in enumerate(pieces)]


def _interleaved(model: LatentModel, row: Row, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Embeddings `[T, d]`, positions `[T]`, what each place sees `[T, T]`, and the places of the states."""
    null = model.soft(None, 1)[0]
    soft = torch.where(torch.from_numpy(row.null).to(null.device)[:, None, None], null, model.soft(latents))
    k, (count, span) = len(null), row.spans.shape
    ids = torch.from_numpy(row.context), torch.from_numpy(row.spans)
    context, spans = (model.embed(x.to(model.device)) for x in ids)
    text = torch.cat([context, *(torch.cat([soft[i], spans[i]]) for i in range(count - 1))])
    total = len(text) + count * k
    sight, positions, places = torch.ones(total, total, dtype=torch.bool).tril(), torch.arange(total), []
    for i in range(count):
        before, at = len(context) + i * (k + span), len(text) + i * k
        sight[at : at + k, before:] = False
        sight[at : at + k, at : at + k] = torch.ones(k, k, dtype=torch.bool).tril()
        positions[at : at + k] = torch.arange(before, before + k)
        places.append(at + k - 1)
    return torch.cat([text, *[null] * count]), positions, sight, places


def _plain(model: LatentModel, row: Row) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """The same for BigVAE's layout, which keeps no latents before a span."""
    ids = torch.from_numpy(np.concatenate([row.context, row.spans[:-1].reshape(-1)])).to(model.device)
    count, span = row.spans.shape
    places = [len(row.context) - 1 + i * span for i in range(count)]
    return model.embed(ids), torch.arange(len(ids)), torch.ones(len(ids), len(ids), dtype=torch.bool).tril(), places
