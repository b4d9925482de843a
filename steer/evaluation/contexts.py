"""One latent in two contexts: the same thing, told in two stories."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from steer.data.pairs import Pair
from steer.data.passages import names_in
from steer.evaluation.bleu import WORD
from steer.evaluation.decoding import Embed, Progress, decode, nlls
from steer.evaluation.statistics import nearest_own, share_with_interval
from steer.models.latent_model import LatentModel


def context_figures(
    model: LatentModel, pairs: Sequence[Pair], embed: Embed, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Write each pair's terminal, from its latent, behind the contexts of the next two pairs of the list.

    A latent carries names as well, so a text may speak of the sentence's own characters; those of the *other* context
    it cannot know.

    Args:
        pairs: of different unseen stories; at least three.

    Returns:
        `sentences`, and shares with intervals. Of texts: `nearest`, nearest to their own sentence among all; `fits`,
        the bare base finds the text likelier behind its own context than behind the other one; `named`, and
        `other_named`, it names someone whom only its own, or only the other context names (None where no context has
        a name). Of sentences: `differ`, the two texts differ. And `base_nll` in its own context and `swapped_nll` in
        the other, means in nats per token.
    """
    n = len(pairs)
    z = model.encode([pair.terminal for pair in pairs], long="truncate")
    contexts = [[pairs[(i + step) % n].context for i in range(n)] for step in (1, 2)]
    ids = [[model.to_ids(text) for text in side] for side in contexts]
    rows = [decode(model, z, side, what="one latent in two contexts", progress=progress) for side in ids]
    texts = [[model.to_text(row) for row in side] for side in rows]
    terminals = embed([pair.terminal for pair in pairs])
    own = np.concatenate([nlls(model, ids[side], rows[side]) for side in (0, 1)])
    swapped = np.concatenate([nlls(model, ids[1 - side], rows[side]) for side in (0, 1)])
    names = [[names_in(side[i]) - names_in(pair.terminal) for i, pair in enumerate(pairs)] for side in contexts]
    return {
        "sentences": n,
        "nearest": share_with_interval(np.concatenate([nearest_own(embed(side) @ terminals.T) for side in texts])),
        "fits": share_with_interval(own < swapped),
        "named": _names_someone(texts, names, names[::-1]),
        "other_named": _names_someone(texts, names[::-1], names),
        "differ": share_with_interval(np.array([one != two for one, two in zip(*rows, strict=True)])),
        "base_nll": float(own.mean()),
        "swapped_nll": float(swapped.mean()),
    }


def _names_someone(
    texts: Sequence[Sequence[str]], names: Sequence[Sequence[set[str]]], without: Sequence[Sequence[set[str]]]
) -> tuple[float, float, float] | None:
    """The share of texts with a word of `names` that is not in `without`, among those for which there is one."""
    hits = []
    for side in range(len(texts)):
        for text, wanted, other in zip(texts[side], names[side], without[side], strict=True):
            if only := wanted - other:
                hits.append(bool(only & set(WORD.findall(text))))
    return share_with_interval(np.array(hits)) if hits else None
