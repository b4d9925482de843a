"""Training of a preference head from a file of pairs."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from steer.errors import CorpusError, TextError
from steer.heads.preference import CENTER, PreferenceConfig, PreferenceHead, preference_loss
from steer.models.latent_model import LatentModel
from steer.text import check_text
from steer.training.heads.fit import Descent, fit

MIN_PAIRS = 10


@dataclass(frozen=True)
class Preference:
    """One pair: the text that was preferred, the other, and what both continue (may be empty)."""

    chosen: str
    rejected: str
    context: str = ""


def read_preferences(path: str | Path) -> list[Preference]:
    """Read pairs from JSON lines (also .gz): objects with `chosen`, `rejected` and perhaps `context`.

    Other fields are passed over, and so are empty lines.

    Raises:
        CorpusError: the file cannot be read, or a line is not such an object; names the line.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise CorpusError(f"{path} is named .gz but cannot be unpacked: {error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); convert it first") from error
    except OSError as error:
        raise CorpusError(f"cannot read pairs {path}: {error.strerror}") from error
    # Not `splitlines`, which also breaks at characters that JSON texts may hold.
    lines = enumerate(text.split("\n"), start=1)
    pairs = [_read_line(line, f"{path} line {number}") for number, line in lines if line.strip()]
    if not pairs:
        raise CorpusError(f'{path} holds no pairs; expected lines such as {{"chosen": "...", "rejected": "..."}}')
    return pairs


def _read_line(line: str, where: str) -> Preference:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{where}: not JSON ({error.msg}): {line.strip()[:80]!r}") from error
    if not isinstance(record, dict) or not {"chosen", "rejected"} <= record.keys():
        raise CorpusError(f"{where}: expected an object with `chosen` and `rejected`, got {line.strip()[:80]!r}")
    try:
        texts = [check_text(record[name], f"{where}: `{name}`") for name in ("chosen", "rejected")]
        context = record.get("context")
        context = "" if context is None else check_text(context, f"{where}: `context`", allow_empty=True)
    except TextError as error:
        raise CorpusError(str(error)) from error
    if texts[0].strip() == texts[1].strip():
        raise CorpusError(f"{where}: `chosen` and `rejected` are the same text: {texts[0].strip()[:60]!r}")
    return Preference(texts[0], texts[1], context)


def held_out_rows(pairs: Sequence[Preference], share: float) -> Tensor:
    """Which pairs are kept for validation: `[n]` bool, about `share` of them and at least one on each side.

    Pairs of one context stay together (those without one go by the preferred text), so that no context is seen on both
    sides. Decided by a hash, so adding pairs moves none.

    Raises:
        CorpusError: all pairs belong to one context.
    """
    keys = [hashlib.blake2b((p.context or p.chosen).encode(), digest_size=8).digest() for p in pairs]
    order = sorted(set(keys))
    if len(order) < 2:
        raise CorpusError("all pairs share one context; give pairs of several, so that some can be held out")
    limit = min(max(int(share * 2**64).to_bytes(9, "big")[1:], order[1]), order[-1])
    return torch.tensor([key < limit for key in keys])


def train_preference(
    model: LatentModel,
    pairs: Sequence[Preference],
    *,
    width: int = 64,
    steps: int = 500,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.1,
    center: float = CENTER,
    held_out: float = 0.1,
    seed: int = 0,
) -> tuple[PreferenceHead, dict[str, float]]:
    """Train a preference head on latents of texts; texts longer than a span count by the mean of their spans.

    Args:
        model: a `LatentModel`, whose encoder makes the latents.
        pairs: at least 10.
        width: of the hidden layer; 0 for a linear head, best for few pairs.
        steps, batch_size, learning_rate, weight_decay: of AdamW.
        center: see `steer.heads.preference.preference_loss`.
        held_out: share of the pairs kept for validation.
        seed: of start values and the order of pairs.

    Returns:
        The head, frozen and in evaluation mode, and figures: `accuracy` and `loss` on held-out pairs, `train_accuracy`,
        `pairs`, `held_out`.

    Raises:
        CorpusError: too few pairs.
        TrainingError: the loss became NaN.
    """
    if len(pairs) < MIN_PAIRS:
        raise CorpusError(f"{len(pairs)} pairs are too few to learn from; give at least {MIN_PAIRS}")
    kept = held_out_rows(pairs, held_out)
    chosen = model.encode([pair.chosen for pair in pairs], long="mean")
    rejected = model.encode([pair.rejected for pair in pairs], long="mean")
    config = PreferenceConfig(encoder_id=model.latent_config.encoder_id, z_dim=chosen.shape[1], width=width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = PreferenceHead(config)
        head.fit_scales(torch.cat([chosen[~kept], rejected[~kept]]))
        rows = torch.nonzero(~kept).squeeze(1)

        def loss(batch: Tensor) -> Tensor:
            return preference_loss(head(chosen[batch]), head(rejected[batch]), center=center)

        def batches() -> Iterator[Tensor]:
            while True:
                yield from reversed(rows[torch.randperm(len(rows))].split(batch_size))

        fit(head, loss, batches(), Descent(steps, learning_rate, weight_decay))
    gains = head.score(chosen) - head.score(rejected)
    right = (gains > 0).float() + (gains == 0).float() / 2
    figures = {
        "accuracy": float(right[kept].mean()),
        "loss": float(-torch.nn.functional.logsigmoid(gains[kept]).mean()),
        "train_accuracy": float(right[~kept].mean()),
        "pairs": len(pairs),
        "held_out": int(kept.sum()),
    }
    head.config = config.model_copy(update={"accuracy": round(figures["accuracy"], 4)})
    return head, figures
