"""From rewards to one value per node.

The components are kept unpooled. Value of a node = weighted mean over its path of `step` rewards, plus, at a final
node, its weighted `end` rewards, and at any other node its weighted `potential` rewards.

Potentials estimate what is still to come. Since they are absent from final nodes they can never change which ending is
best: potential-based shaping with gamma 1 (Ng, Harada and Russell 1999).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from steer.errors import RewardError
from steer.rewards.config import RewardsConfig, load_rewards
from steer.rewards.registry import REWARDS, Kind
from steer.rewards.states import States

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel


@final
class Rewards:
    """Rewards that are ready to score with one model.

    Args:
        config: which rewards count, when and how much.
        model: whose nodes are scored.

    Attributes:
        names: of the C components, in the order of the configuration.
        kinds: when each counts.
        weights: how much.

    Raises:
        RewardError: the configuration is wrong, or the model lacks what a reward needs.
        CheckpointError: a preference head cannot be read, or belongs to another encoder.
    """

    def __init__(self, config: RewardsConfig | Mapping[str, Any], model: "LatentModel") -> None:
        self.config = config if isinstance(config, RewardsConfig) else load_rewards(config)
        self._specs = tuple(self.config.root.values())
        self.names: tuple[str, ...] = tuple(self.config.root)
        self.kinds: tuple[Kind, ...] = tuple(spec.at for spec in self._specs)
        self.weights: tuple[float, ...] = tuple(spec.weight for spec in self._specs)
        for spec in self._specs:
            REWARDS[spec.reward].check(model, spec.options)

    def __len__(self) -> int:
        return len(self.names)

    def counted(self, final: Sequence[bool] | Tensor) -> Tensor:
        """Whether each component takes part in the value of nodes that are final or not: `[n, C]` bool."""
        ends = torch.as_tensor(final, dtype=torch.bool)[:, None]
        kinds = np.array(self.kinds)
        step, end, potential = (torch.from_numpy(kinds == kind) for kind in ("step", "end", "potential"))
        return (step | (ends & end) | (~ends & potential)) & (torch.tensor(self.weights) != 0)

    @torch.no_grad()
    def score(self, states: States, *, final: Sequence[bool] | Tensor | None = None) -> Tensor:
        """Components of each state, neither weighted nor pooled.

        Args:
            states: n of them.
            final: `[n]`, the same as is told to `combine`; by default `states.final`.

        Returns:
            `[n, C]` float32 on the CPU. Costly rewards (`rubric`) are asked only about states where they count, and are
            0 elsewhere.

        Raises:
            RewardError: a reward lacks what it needs, or gave NaN, infinity or a wrong shape; names it.
        """
        counted = self.counted(states.final if final is None else final)
        if counted.shape[0] != len(states):
            raise RewardError(f"`final` must tell {len(states)} states; got {counted.shape[0]}")
        out = torch.zeros(len(states), len(self))
        for column, (name, spec) in enumerate(zip(self.names, self._specs, strict=True)):
            reward = REWARDS[spec.reward]
            asked = counted[:, column].nonzero()[:, 0] if reward.costly else torch.arange(len(states))
            if len(asked) == 0:
                continue
            part = states if len(asked) == len(states) else states.rows(asked.tolist())
            values = reward.score(part, spec.options)
            if values.shape != (len(asked),):
                raise RewardError(f"reward {name!r} must give [{len(asked)}]; it gave {list(values.shape)}")
            values = values.detach().to("cpu", torch.float32)
            if not bool(values.isfinite().all()):
                row = int(asked[~values.isfinite()][0])
                raise RewardError(f"reward {name!r} gave NaN or infinity for state {row} of {len(states)}")
            out[asked, column] = values
        return out

    def combine(self, path: ArrayLike | Tensor, final: bool) -> float:
        """Value of the node at the end of a path.

        Args:
            path: `[depth, C]`, components of each node from the root's child to the node itself.
            final: whether nothing comes after it.

        Raises:
            RewardError: the path is empty or has another number of components.
        """
        path = np.asarray(path, dtype=np.float64)
        if path.ndim != 2 or len(path) == 0:
            raise RewardError(f"a path must be [depth, {len(self)}] with depth from 1; got {list(path.shape)}")
        return float(self.combine_many(path.sum(0)[None], path[-1:], [len(path)], [final])[0])

    def combine_many(
        self, sums: ArrayLike | Tensor, last: ArrayLike | Tensor, depths: ArrayLike | Tensor, final: ArrayLike | Tensor
    ) -> NDArray[np.float64]:
        """Values of many nodes, from running sums along their paths.

        Args:
            sums: `[n, C]`, components added up over each path, the node's own included. Only `step` columns are read.
            last: `[n, C]`, the nodes' own components.
            depths: `[n]` int, nodes on each path.
            final: `[n]` bool.

        Returns:
            `[n]` float64.

        Raises:
            RewardError: shapes do not fit, or a depth is below 1.
        """
        sums, last = np.asarray(sums, dtype=np.float64), np.asarray(last, dtype=np.float64)
        depths, ends = np.asarray(depths), np.asarray(final, dtype=bool)
        n = len(depths) if depths.ndim else 0
        if sums.shape != (n, len(self)) or last.shape != (n, len(self)) or ends.shape != (n,):
            raise RewardError(
                f"expected sums and last [{n}, {len(self)}] and final [{n}]; got {list(sums.shape)}, "
                f"{list(last.shape)} and {list(ends.shape)}"
            )
        if (depths < 1).any():
            raise RewardError("a depth is below 1; a root has no value, since nothing was written there")
        values = np.zeros(n)
        for column, (kind, weight) in enumerate(zip(self.kinds, self.weights, strict=True)):
            if weight == 0:
                continue
            if kind == "step":
                values += weight * sums[:, column] / depths
            else:
                values += np.where(ends == (kind == "end"), weight * last[:, column], 0.0)
        return values
