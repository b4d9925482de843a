"""Scenarios: who plays, what is seen at the start, what each character secretly wants, and how it is pulled there.

A scenario is a YAML file, checked by pydantic: unknown keys are errors, and every error names its line and key. Of all
that it says, only `opening` and the characters' names are ever seen by the model.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import pydantic
import yaml
from pydantic import Field

from agents.arguments import expect
from agents.errors import ScenarioError
from agents.scenarios.planner_settings import Planner, Share, error_at
from steer.quotations import shared_words
from steer.records import StrictRecord
from steer.text import check_text
from steer.writing.config import WritingConfig
from steer.writing.sampling import SamplingConfig

SCHEMA_VERSION = 1
DEFAULT_MODEL = "llama-fable-6m"

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Goal(StrictRecord):
    """What a character wants, or wants to avoid. Its text is encoded, never shown.

    Attributes:
        id: unique within the character.
        kind: `terminal` pulls towards the text, `avoid` away from it.
        text: one short whole sentence with something visible in it; at most one span long.
        weight: factor on the schedule, and on the score by which the planner chooses between goals.
        by_turn: last turn (of all, counted from 1) in which it counts; the last turn of the run by default.
        source: where the text is from, for people; set where the goal was found, see `Wish`.
    """

    id: Identifier
    kind: Literal["terminal", "avoid"] = "terminal"
    text: str
    weight: Share = 1.0
    by_turn: int | None = Field(default=None, ge=1)
    source: str = ""

    @pydantic.field_validator("text")
    @classmethod
    def _check_text(cls, text: str) -> str:
        return check_text(text, "the goal's text").strip()


class Wish(StrictRecord):
    """Goals that are found when the run starts, instead of being written down; see `agents.characters.goal_queries`.

    Attributes:
        like: a text that the goals resemble; by default the character's description.
        among: folder of an index of passages, from which they are taken; a relative path counts from the scenario's
            file. Without one the sentences of `like` are the goals.
        endings: take the last passages of documents alone.
        count: how many goals.
        kind, weight, by_turn: of each, see `Goal`.
    """

    like: str | None = None
    among: str | None = Field(default=None, min_length=1)
    endings: bool = True
    count: int = Field(default=1, ge=1, le=20)
    kind: Literal["terminal", "avoid"] = "terminal"
    weight: Share = 1.0
    by_turn: int | None = Field(default=None, ge=1)

    @pydantic.field_validator("like")
    @classmethod
    def _check_like(cls, like: str | None) -> str | None:
        return None if like is None else check_text(like, "what the goals are like").strip()


class Character(StrictRecord):
    """Someone who takes turns.

    Attributes:
        id: unique within the scenario; owner of its goals in the store.
        name: stands in the visible text, as the cue of its turns.
        voice: sample texts, whose mean latent is a weak constant pull; never shown.
        goals: any number of them.
        description: who it is; never shown, see `wishes`.
        wishes: goals to be found when the run starts.
        hears: ids of those whose turns it witnesses besides its own, which its memories are made of; by default all.
    """

    id: Identifier
    name: str = Field(max_length=80)
    voice: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()
    description: str = ""
    wishes: tuple[Wish, ...] = ()
    hears: tuple[str, ...] | None = None

    @pydantic.field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        name = check_text(name, "the name").strip()
        if len(name.splitlines()) > 1:
            raise ValueError("a name is a single line")
        return name

    @pydantic.field_validator("voice")
    @classmethod
    def _check_voice(cls, voice: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_text(text, f"voice sample {i + 1}") for i, text in enumerate(voice))

    @pydantic.model_validator(mode="after")
    def _check_wishes(self) -> Self:
        for i, wish in enumerate(self.wishes):
            if wish.like is None and not self.description.strip():
                raise error_at(
                    f"wishes.{i}.like", "neither `like` nor the character's description says what to wish for"
                )
        return self


_SAMPLING = WritingConfig().sampling


class Sampling(StrictRecord):
    """How tokens are drawn; see `steer.writing.sampling.SamplingConfig`."""

    temperature: float = _SAMPLING.temperature
    top_k: int = _SAMPLING.top_k
    top_p: float = _SAMPLING.top_p
    min_p: float = _SAMPLING.min_p
    repetition_penalty: float = _SAMPLING.repetition_penalty

    @pydantic.model_validator(mode="after")
    def _check_values(self) -> Self:
        self.config()
        return self

    def config(self) -> SamplingConfig:
        """The same for `steer`.

        Raises:
            SamplingError: a value is out of range.
        """
        return SamplingConfig(**self.model_dump())


class Scenario(StrictRecord):
    """A whole scenario.

    Attributes:
        schema_version: 1.
        id, title: for people and file names.
        model: hub id, folder, or name of the packaged model; a relative folder counts from the scenario's file.
        opening: the only visible text at the start; white space around it is dropped.
        format: `prose` starts each turn with a paragraph that begins with the name, `script` with a line `Name:`.
        turns: number of turns; characters take them in order, round robin.
        spans_per_turn: spans written per turn, before they are cut back to whole sentences.
        seed: of all randomness.
        stop_at_end: end the run when the model ends the story; by default that ends only the turn.
        characters, planner, sampling: see there.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    id: Identifier
    title: str = ""
    model: str = DEFAULT_MODEL
    opening: str
    format: Literal["prose", "script"] = "prose"
    turns: int = Field(ge=1, le=10_000)
    spans_per_turn: int = Field(default=2, ge=1, le=64)
    seed: int = Field(default=0, ge=0, lt=2**63)
    stop_at_end: bool = False
    characters: tuple[Character, ...] = Field(min_length=1)
    planner: Planner = Planner()
    sampling: Sampling = Sampling()

    @pydantic.field_validator("opening")
    @classmethod
    def _check_opening(cls, opening: str) -> str:
        return check_text(opening, "the opening").strip()

    @pydantic.model_validator(mode="after")
    def _check_whole(self) -> Self:
        _unique([c.id for c in self.characters], "characters", "id", "character")
        _unique([c.name.casefold() for c in self.characters], "characters", "name", "character")
        if self.sampling.temperature == 0:
            if self.planner.method == "search":
                raise error_at("sampling.temperature", "at 0 every text is the same; method search needs more than one")
            if any(item.temperature is not None for item in self.planner.menu):
                raise error_at("sampling.temperature", "at 0 nothing is drawn, but the menu has temperatures")
        visible = "\n".join([self.opening, *(c.name for c in self.characters)])
        known = {c.id for c in self.characters}
        for i, character in enumerate(self.characters):
            _unique([g.id for g in character.goals], f"characters.{i}.goals", "id", "goal")
            for k, wish in enumerate(character.wishes):
                if wish.by_turn is not None and wish.by_turn > self.turns:
                    place = f"characters.{i}.wishes.{k}.by_turn"
                    raise error_at(place, f"by_turn is {wish.by_turn}, but the run has {self.turns} turns")
            for k, other in enumerate(character.hears or ()):
                if other not in known:
                    raise error_at(f"characters.{i}.hears.{k}", f"there is no character {other!r}")
            for k, goal in enumerate(character.goals):
                place = f"characters.{i}.goals.{k}"
                if goal.by_turn is not None and goal.by_turn > self.turns:
                    raise error_at(f"{place}.by_turn", f"by_turn is {goal.by_turn}, but the run has {self.turns} turns")
                if words := shared_words(goal.text, visible):
                    raise error_at(
                        f"{place}.text",
                        f"the words {words!r} of this goal stand in the opening, where the model would read them; "
                        "reword one of the two",
                    )
        return self

    def speaker(self, turn: int) -> Character:
        """Whose turn it is; turns count from 1."""
        return self.characters[(turn - 1) % len(self.characters)]

    def cue(self, character: Character) -> str:
        """The visible text that hands the turn to a character."""
        return f"\n{character.name}:" if self.format == "script" else f"\n\n{character.name}"

    def deadline(self, goal: Goal) -> int:
        """The last turn in which a goal counts."""
        return self.turns if goal.by_turn is None else goal.by_turn

    def goals(self) -> Iterator[tuple[Character, Goal]]:
        """All goals with their characters, in order."""
        return ((character, goal) for character in self.characters for goal in character.goals)

    def sha256(self) -> str:
        """Hash of all settings, defaults included, whatever the file looked like."""
        data = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(data.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The scenario as a file that `load_scenario` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def goal_key(character: str, goal: str) -> str:
    """Name of a goal in logs and in the store: `character/goal`."""
    return f"{character}/{goal}"


def override(scenario: Scenario, *, seed: int | None = None, turns: int | None = None) -> Scenario:
    """The scenario with another seed or number of turns. Deadlines after the new last turn move to it.

    Raises:
        ScenarioError: a value is out of range.
        ArgumentError: one is no whole number.
    """
    for name, value in (("seed", seed), ("turns", turns)):
        if value is not None:
            expect(value, int, name)
    data = scenario.model_dump()
    data |= {key: value for key, value in (("seed", seed), ("turns", turns)) if value is not None}
    if turns is not None:
        for character in data["characters"]:
            for goal in (*character["goals"], *character["wishes"]):
                goal["by_turn"] = goal["by_turn"] and min(goal["by_turn"], turns)
    try:
        return Scenario.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "scenario"
        raise ScenarioError(f"{where}: {first['msg']} (got {first['input']!r})") from error


def _unique(values: list[str], place: str, field: str, what: str) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise error_at(f"{place}.{index}.{field}", f"a second {what} with the {field} {value!r}; each needs one")
