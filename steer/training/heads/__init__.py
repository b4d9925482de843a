"""Training of the small heads: the stages of those that a model carries, by name."""

from steer.training.heads.prior import PRIOR
from steer.training.heads.reach import REACH

HEADS = {kind.name: kind for kind in (REACH, PRIOR)}
