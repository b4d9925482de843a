"""When does a terminal count as told? Thresholds for the two signs of it, calibrated on stories.

The signs are the reach head's probability that the terminal lies inside a span, and the cosine of the two latents. Both
must be above their thresholds. Of all pairs of thresholds that let so few terminals of other stories pass, those are
taken that miss the fewest terminals that the span does tell; and among those that are about as good, the pair with the
highest cosine, since text that a model was pushed to write may fool the head where stories do not.

That is not enough where a goal is pulled to until it counts as reached: a run stops at the first text above a
threshold, and would stop at the weakest telling that a story ever has. There the cosine must be that of a middling
telling.
"""

import numpy as np

from steer.data.passages import Passages
from steer.evaluation.told import Signs, draw_signs
from steer.heads.reach import ReachHead

ALARMS = 0.001  # share of terminals of other stories that may pass
CANDIDATES = 200  # cosines that are tried as thresholds
SLACK = 0.005  # of recall, within which two pairs of thresholds are about as good


def calibrate_told(
    head: ReachHead, passages: Passages, *, alarms: float = ALARMS, count: int = 20_000, seed: int = 0
) -> tuple[float, float] | None:
    """The thresholds of cosine and probability from which a terminal counts as told in a span.

    Args:
        head: calibrated.
        passages: of stories that it was not trained on.
        alarms: share of terminals of other stories, and of stories with a shared name, that may pass.
        count: pairs drawn of each kind.
        seed: of the pairs.

    Returns:
        None where the stories hold no span that tells a terminal, or no two stories.
    """
    found = draw_signs(head, passages, count, seed)
    kinds = [found[name] for name in ("other", "rival") if len(found[name].told)]
    if not kinds or not len(found["told"].told):
        return None
    # Close together where few are left, since that is where thresholds matter.
    shares = [0.0, *(1 - np.geomspace(1.0, alarms / 2, CANDIDATES)), 1.0]
    tried = np.quantile(np.concatenate([kind.cosine for kind in kinds]), shares)
    options = []
    for cosine in tried.tolist():
        # The least probability that leaves few enough of each kind, given the cosine.
        told = max(_threshold(kind, cosine, alarms) for kind in kinds)
        options.append((cosine, told, found["told"].pass_share(cosine, told)))
    most = max(recall for _, _, recall in options)
    cosine, told, _ = max(option for option in options if option[2] >= most - SLACK)
    # Rounded up, so that rounding lets no more pass; but where nothing passes, 1 is as high as either goes.
    return tuple(min(float(np.ceil(value * 1e4) / 1e4), 1.0) for value in (cosine, told))  # type: ignore[return-value]


def middling_telling(head: ReachHead, passages: Passages, *, count: int = 20_000, seed: int = 0) -> float | None:
    """The median cosine of spans and the terminals that they tell; None where no span tells one.

    Args:
        head: says by its buckets and span length which pairs those are.
        passages: of stories.
        count: pairs drawn.
        seed: of the pairs.
    """
    told = draw_signs(head, passages, count, seed)["told"].cosine
    return round(float(np.median(told)), 4) if len(told) else None


def _threshold(signs: Signs, cosine: float, alarms: float) -> float:
    """The least probability that at most a share `alarms` of the pairs is above, together with this cosine."""
    allowed = int(alarms * len(signs.told))
    rest = np.sort(signs.told[signs.cosine >= cosine])[::-1]
    return float(np.nextafter(rest[allowed], np.float32(2))) if len(rest) > allowed else 0.0
