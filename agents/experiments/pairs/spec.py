"""The file of an experiment over pairs, checked by pydantic; unknown keys are errors, each with its line and key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic import Field

from agents.experiments.pairs.arms import ARMS, Options, options_of
from agents.experiments.spec import Experiment, Name, Seed, at, slug
from agents.scenarios.schema import Sampling
from steer.records import StrictRecord, unknown_keys
from steer.writing.config import WritingConfig

Budget = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class PairSource(StrictRecord):
    """Where contexts and terminals come from: exactly one of `file`, `packaged` and `stories`.

    Attributes:
        file: JSON lines with `id`, `context` and `terminal`; a relative path starts from the experiment's file.
        packaged: name of a file that comes with the package.
        stories: text from which pairs are cut by `steer.data.pairs.make_pairs` (`.txt`, `.jsonl`, also `.gz`, or a
            folder).
        count, seed: of the pairs to cut; with `stories` alone.
    """

    file: str | None = None
    packaged: str | None = None
    stories: str | None = None
    count: int | None = Field(default=None, ge=2)
    seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [name for name in ("file", "packaged", "stories") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of file, packaged and stories; got {', '.join(given) or 'none'}")
        if (self.stories is None) != (self.count is None):
            raise ValueError("count goes with stories: stories: FILE, count: 100")
        return self


class Arm(StrictRecord):
    """One way of writing.

    Attributes:
        name: in tables and figures.
        method: one of `agents.experiments.pairs.arms.ARMS`.
        budget: tokens that may be generated per pair, in multiples of `spans * span_tokens`.
        budgets: several of them; each becomes an arm of its own, `NAME x16`.
        options: of the method; in the file they stand beside the other keys.
    """

    name: Name
    method: str
    budget: Budget | None = None
    budgets: tuple[Budget, ...] = ()
    options: pydantic.SerializeAsAny[Options] = Options()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        own = set(cls.model_fields) - {"options"}
        rest = {key: value for key, value in data.items() if key not in own}
        arm = {key: value for key, value in data.items() if key in own}
        if data.get("method") not in ARMS:
            return arm  # the check of `method` tells
        kind = options_of(data["method"])
        known = [*sorted(own), *kind.model_fields]
        if error := unknown_keys(rest, known, f"key for an arm of method {data['method']}"):
            raise error
        return arm | {"options": kind.model_validate(rest)}

    @pydantic.field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        if method not in ARMS:
            raise ValueError(f"unknown method; expected one of {', '.join(ARMS)}")
        return method

    @pydantic.model_validator(mode="after")
    def _check_budget(self) -> Self:
        given = [name for name in ("budget", "budgets") if getattr(self, name)]
        if self.options.budgeted and len(given) != 1:
            raise ValueError(f"method {self.method} needs budget or budgets, one of the two")
        if given and not self.options.budgeted:
            raise at(given[0], f"method {self.method} has no budget; leave {given[0]} out")
        if len(set(self.budgets)) < len(self.budgets):
            raise at("budgets", f"a budget stands twice in {list(self.budgets)}")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _flatten(self, handler: Any) -> dict[str, Any]:
        data = handler(self)
        return data | data.pop("options")


@dataclass(frozen=True)
class Variant:
    """An arm with one of its budgets: a row of the tables.

    Attributes:
        name: the arm's, with ` x16` behind it where the arm has several budgets.
        arm, budget: of it.
    """

    name: str
    arm: Arm
    budget: float | None

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return slug(self.name)


class PairExperiment(Experiment):
    """An experiment over pairs of context and terminal.

    Attributes:
        pairs: contexts and terminals; all arms share them.
        limit: use only the first pairs; may change between runs in the same folder.
        spans: written per pair.
        sampling: how tokens are drawn, in all arms.
        rewards: settings for `steer.rewards.RewardsConfig`, for arms that search; by default the search's own.
        reached: similarity to the terminal, by the judge, from which a span counts as having reached it.
        chunk: pairs written together. A run that is stopped loses at most one chunk per process.
        arms: what is compared.
    """

    not_settings: ClassVar[frozenset[str]] = Experiment.not_settings | {"limit", "pairs"}

    pairs: PairSource
    limit: int | None = Field(default=None, ge=2)
    spans: int = Field(default=6, ge=1, le=256)
    sampling: Sampling = Sampling()
    rewards: dict[str, Any] | None = None
    reached: float = Field(default=0.5, gt=0, le=1)
    chunk: int = Field(default=20, ge=1, le=4096)
    arms: tuple[Arm, ...] = Field(min_length=1)

    @pydantic.field_validator("rewards")
    @classmethod
    def _check_rewards(cls, rewards: dict[str, Any] | None) -> dict[str, Any] | None:
        if rewards is not None:
            from steer.rewards import RewardsConfig

            RewardsConfig.model_validate(rewards)
        return rewards

    def config(self) -> WritingConfig:
        """How all arms write, before their options: without guidance."""
        return WritingConfig(spans=self.spans, sampling=self.sampling.config(), guidance_scale=1.0)

    def arm_names(self) -> list[tuple[int, str]]:
        """Names as they stand in the tables, in order, each with the index of its arm in the file."""
        return [(index, variant.name) for index, arm in enumerate(self.arms) for variant in expand(arm)]

    def variants(self) -> list[Variant]:
        """All arms, each with each of its budgets."""
        return [variant for arm in self.arms for variant in expand(arm)]


def expand(arm: Arm) -> Iterator[Variant]:
    """An arm with each of its budgets."""
    if not arm.budgets:
        yield Variant(arm.name, arm, arm.budget)
    for budget in arm.budgets:
        yield Variant(f"{arm.name} x{budget:g}", arm, budget)
