"""Training examples of the autoencoder stage.

A context, the spans behind it, and the evidence that the encoder is given of each span.

Goals are short whole sentences, spans are S tokens cut anywhere. So the encoder often sees just a part of its span (a
sentence, a window, a thinned row of tokens) while the router must still write all of it: a latent is evidence for a
passage, which is what a goal is.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from steer.data.corpus import TokenCorpus

SENTENCE_ENDS = (".", "!", "?", '."', '!"', '?"', ".'", "!'", "?'")


def sentence_ends(tokenizer: Any) -> np.ndarray:
    """`[V]` bool: tokens after which a sentence may end."""
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return np.array([t.rstrip().endswith(SENTENCE_ENDS) and len(t) > 0 for t in texts])


class SpanDataset(Dataset):
    """Windows of stories. Row `i` depends on `(seed, i)` only, so a resumed run sees what it would have seen.

    Args:
        corpus: the stories.
        repeats: `[n_stories]` how often each occurs, or None.
        length: rows.
        spans, span_tokens, context_tokens: n, S, C.
        eos_id: fills the context before the first story of the corpus.
        partial_prob: share of spans of which the encoder sees a part.
        ends: `[V]` bool, see `sentence_ends`.
        seed: of all choices.
    """

    def __init__(
        self,
        corpus: TokenCorpus,
        repeats: np.ndarray | None,
        *,
        length: int,
        spans: int,
        span_tokens: int,
        context_tokens: int,
        eos_id: int,
        partial_prob: float,
        ends: np.ndarray,
        seed: int,
    ) -> None:
        self.corpus = corpus
        lengths = np.diff(corpus.offsets).astype(np.float64)
        weights = lengths * (repeats if repeats is not None else 1.0)
        self.cumulative = np.cumsum(weights / weights.sum())
        self.length = length
        self.spans, self.span_tokens, self.context_tokens = spans, span_tokens, context_tokens
        self.eos_id, self.partial_prob, self.ends, self.seed = eos_id, partial_prob, ends, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, index))
        number = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.corpus) - 1)
        first, end = int(self.corpus.offsets[number]), int(self.corpus.offsets[number + 1])
        n, size = self.spans, self.span_tokens
        start = first + int(rng.integers(0, max(1, end - first - (n * size) // 2)))
        context = self.corpus.tokens[max(0, start - self.context_tokens) : start].astype(np.int64)
        if len(context) < self.context_tokens:
            context = np.concatenate([np.full(self.context_tokens - len(context), self.eos_id), context])
        spans, mask = np.zeros((n, size), np.int64), np.zeros((n, size), np.int64)
        evidence, evidence_mask = np.zeros((n, size), np.int64), np.zeros((n, size), np.int64)
        for i in range(n):
            ids = self.corpus.tokens[start + i * size : min(end, start + (i + 1) * size)].astype(np.int64)
            if len(ids) == 0:
                break
            spans[i, : len(ids)], mask[i, : len(ids)] = ids, 1
            seen = self._evidence(ids, rng)
            evidence[i, : len(seen)], evidence_mask[i, : len(seen)] = seen, 1
        return {
            "index": np.array(index),
            "context": context,
            "spans": spans,
            "span_mask": mask,
            "evidence": evidence,
            "evidence_mask": evidence_mask,
        }

    def _evidence(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.partial_prob or len(ids) < 6:
            return ids
        kind = rng.random()
        borders = np.flatnonzero(self.ends[ids]) + 1
        if kind < 0.6 and len(borders) >= 2:
            first = int(rng.integers(0, len(borders) - 1))
            sentence = ids[borders[first] : borders[first + 1]]
            if len(sentence) >= 3:
                return sentence
        if kind < 0.85:
            size = int(rng.integers(5, len(ids)))
            start = int(rng.integers(0, len(ids) - size + 1))
            return ids[start : start + size]
        kept = ids[rng.random(len(ids)) >= rng.uniform(0.1, 0.5)]
        return kept if len(kept) else ids


def collate(rows: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Stack rows of a `SpanDataset` to a batch. B rows, n spans per row, S tokens per span; all int64.

    Returns:
        `index` `[B]`, of the rows. `context` `[B, C]`, what stands before the first span; before a story's start the
        end of the story before it, as in packed text. `spans` `[B, n, S]`, right-padded, and `span_mask`, 1 for tokens
        of the story and its end token. `evidence` `[B, n, S]`, what the encoder sees, moved to the left, and
        `evidence_mask`.
    """
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
