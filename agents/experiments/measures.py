"""What measures of all kinds have in common: how one is described and shown, the judge, and what it has read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steer.data.pairs import Pair
from steer.evaluation.endings import GROUP
from steer.models.latent_model import LatentModel


@dataclass(frozen=True)
class Measure:
    """A measure and how it is shown.

    Attributes:
        take: the function, see `agents.experiments.pairs.measures` and `agents.experiments.scenarios.measures`.
        group: the table that it stands in; `role`: in those by role alone.
        percent: whether it is a share.
        digits: shown behind the point, where it is none.
        judged: whether it needs the judge.
        whole: of a scenario, whether it is of the whole text, rather than of each goal.
    """

    take: Callable[..., NDArray[np.float64]]
    group: Literal["goal", "text", "cost", "role"]
    percent: bool = False
    digits: int = 2
    judged: bool = False
    whole: bool = False


def takeable(measures: Mapping[str, Measure], *, judged: bool) -> list[str]:
    """Names of the measures that can be taken with a judge, or without one."""
    return [name for name, measure in measures.items() if judged or not measure.judged]


def of_group(names: Iterable[str], measures: Mapping[str, Measure], group: str) -> list[str]:
    """Those of `names` that stand in one table."""
    return [name for name in names if name in measures and measures[name].group == group]


def glossary(names: Iterable[str], measures: Mapping[str, Measure]) -> list[tuple[str, str]]:
    """Each of `names` that is known, with the first line of its docstring."""
    return [
        (name.replace("_", " "), (measures[name].take.__doc__ or "Not described.").strip().splitlines()[0])
        for name in names
        if name in measures
    ]


class Embedder(Protocol):
    """What judges: gives unit vectors of texts. No reward and no arm may use it."""

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors `[n, d]` float32."""
        ...


def installed_judge() -> Embedder | None:
    """The judge of the extra `judge`, or None where that is not installed."""
    from steer.evaluation.judge import Judge, judge_folder

    return None if judge_folder() is None else Judge()


@final
class JudgeContext:
    """What measures need besides the texts, with the judge's vectors kept.

    Args:
        model: for its bare base.
        judge: the embedder, or None where none is installed: then measures that need it are not taken.
        pairs: all of the experiment, where it is over pairs.
        reached: similarity from which a span counts as having reached the terminal.

    Attributes:
        model, judge, pairs, reached: as above.
    """

    def __init__(
        self, model: LatentModel, judge: Embedder | None, pairs: Sequence[Pair] = (), *, reached: float = 1.0
    ) -> None:
        self.model, self.judge, self.pairs, self.reached = model, judge, pairs, reached
        self._vectors: dict[str, NDArray[np.float64]] = {}
        self._places = {pair.id: index for index, pair in enumerate(pairs)}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Unit vectors `[n, d]` of texts, at least one, each embedded once; zeros of an empty one."""
        assert self.judge is not None
        # The terminals come first, all at once: every measure of the judge's needs them.
        needed = {*texts, *(() if self._vectors else (pair.terminal for pair in self.pairs))}
        # Sorted, so that little of a batch is padding.
        fresh = sorted({t for t in needed if t.strip()} - self._vectors.keys(), key=lambda t: (len(t), t))
        if fresh:
            self._vectors |= dict(zip(fresh, self.judge.embed(fresh).double().numpy(), strict=True))
        nothing = np.zeros_like(next(iter(self._vectors.values())))
        return np.stack([self._vectors.get(text, nothing) for text in texts])

    def rivals(self, pair: Pair) -> list[str]:
        """The terminals that compete with that of `pair`, its own included: a hundred, or all if there are fewer.

        The last group is filled up from the one before it, so that all ranks are among equally many.
        """
        place = self._places[pair.id] // GROUP * GROUP
        start = max(0, min(place, len(self.pairs) - GROUP))
        return [other.terminal for other in self.pairs[start : start + GROUP]]
