"""Goals and voices: texts to latents, kept in the run's vector store.

They are encoded once, when the run starts, each text alone so that its latent depends on nothing else. From then on the
store is the source: a resumed run reads the vectors back, bit for bit.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from agents.errors import GoalError, RunDamaged, RunMismatch, RunWriteError
from agents.log.events import GoalInfo
from agents.scenarios.schema import Character, Goal, Scenario, goal_key
from steer.latents.mixing import task_vector
from steer.models.latent_model import LatentModel
from vectorstore import NewRecord, StorageFailure, VectorStore, VectorStoreError

VOICE = "voice"


@dataclass(frozen=True, eq=False)
class Found:
    """A goal that a search found, with the cosine of its terminal to the state."""

    goal: Goal
    similarity: float


@final
class GoalBook:
    """The goals and voices of a run, over its open store. Nothing here changes after `create` or `load`.

    Attributes:
        scenario: whose goals they are.
        vectors: float32 `[z_dim]` of each goal by `character/goal`.
        voices: float32 `[z_dim]` of each character that has a voice, by character id.
    """

    def __init__(self, scenario: Scenario, store: VectorStore) -> None:
        """Read what the scenario needs from a store; use `create` or `load`.

        Raises:
            RunDamaged: something is missing, or of another text or kind than the scenario's.
        """
        self.scenario = scenario
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self.voices: dict[str, NDArray[np.float32]] = {}
        self._store = store
        records = {record.id: record for record in store.records()}
        wanted = {record_id: (owner, kind, text) for record_id, owner, kind, text in _texts(scenario)}
        for record_id, expected in wanted.items():
            record = records.get(record_id)
            if record is None or (record.owner, record.kind, record.text) != expected:
                what = "is missing from" if record is None else "has another owner, kind or text in"
                raise RunDamaged(f"{record_id} {what} {store.path}; the store belongs to another run, or was changed")
            if record.kind == VOICE:
                self.voices[record.owner] = record.vector
            else:
                self.vectors[record_id] = record.vector
        if extra := sorted(records.keys() - wanted.keys()):
            raise RunDamaged(f"{store.path} holds {extra[0]!r}, which is not in the scenario; it was changed")

    @classmethod
    def create(cls, scenario: Scenario, model: LatentModel, folder: Path) -> Self:
        """Encode everything and store it in a new folder.

        Raises:
            GoalError: a text does not suit this model; see `check_texts`.
            RunWriteError: the store cannot be written.
        """
        check_texts(scenario, model)
        records = [
            NewRecord(
                id=record_id,
                owner=owner,
                kind=kind,
                text=text,
                vector=_encode(model, scenario, record_id, kind, text),
                encoder=model.latent_config.encoder_identity,
            )
            for record_id, owner, kind, text in _texts(scenario)
        ]
        store = _open(folder, model, create=True)
        try:
            store.add(records)
            return cls(scenario, store)
        except StorageFailure as error:
            store.close()
            raise RunWriteError(f"cannot store the goals: {error}") from error
        except BaseException:
            store.close()
            raise

    @classmethod
    def load(cls, scenario: Scenario, model: LatentModel, folder: Path) -> Self:
        """Open the goals of a run that was started before; the store is not written.

        Raises:
            RunMismatch: the store holds vectors of another encoder.
            RunDamaged: it is missing, or does not hold what the scenario says.
        """
        store = _open(folder, model, create=False)
        try:
            return cls(scenario, store)
        except BaseException:
            store.close()
            raise

    def search(self, state: NDArray[np.float32], character: Character, *, k: int, skip: Iterable[str]) -> list[Found]:
        """The `k` terminals of a character that are nearest to a state, nearest first, settled ones left out.

        Args:
            state: float32 `[z_dim]`.
            character: whose.
            k: how many at most.
            skip: ids of goals to leave out.
        """
        goals = {goal.id: goal for goal in character.goals if goal.kind == "terminal"}
        left_out = set(skip) & goals.keys()
        if len(left_out) == len(goals):
            return []
        hits = self._store.search(state, k + len(left_out), owner=character.id, kind="terminal")
        found = [Found(goals[hit.record.id.partition("/")[2]], hit.score) for hit in hits]
        return [item for item in found if item.goal.id not in left_out][:k]

    def infos(self) -> tuple[GoalInfo, ...]:
        """The goals as the opening event records them."""
        return tuple(
            GoalInfo(
                character=character.id,
                name=character.name,
                goal=goal.id,
                kind=goal.kind,
                text=goal.text,
                weight=goal.weight,
                by_turn=self.scenario.deadline(goal),
                vector_sha256=vector_hash(self.vectors[goal_key(character.id, goal.id)]),
            )
            for character, goal in self.scenario.goals()
        )

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_texts(scenario: Scenario, model: LatentModel) -> None:
    """Refuse what this model cannot use, before anything is written.

    Raises:
        GoalError: a goal is longer than a span; or the opening, a name, a goal or a voice holds special tokens.
    """
    special = set(model.tokenizer.all_special_ids)

    def ids_of(text: str, what: str, *, encoded: bool = False) -> list[int]:
        ids = model.encoded_ids(text) if encoded else model.to_ids(text)
        if found := special & set(ids):
            tokens = ", ".join(repr(model.tokenizer.convert_ids_to_tokens(i)) for i in sorted(found))
            raise GoalError(f"{what} holds the special token {tokens}; expected plain text, take it out")
        return ids

    if not ids_of(scenario.opening, "the opening"):
        raise GoalError("the opening has no tokens with this model's tokenizer; expected at least one")
    for character in scenario.characters:
        ids_of(scenario.cue(character), f"the name {character.name!r}")
        for sample in character.voice:
            ids_of(sample, f"the voice of {character.id!r}")
    for character, goal in scenario.goals():
        what = f"goal {goal.id!r} of {character.id!r}"
        if (count := len(ids_of(goal.text, what, encoded=True))) > model.span_tokens:
            raise GoalError(
                f"{what} has {count} tokens; a goal fits one span, which is {model.span_tokens} tokens with this "
                f"model: shorten {goal.text[:60]!r}, or make two goals of it"
            )


def vector_hash(vector: NDArray[np.float32]) -> str:
    """SHA-256 of a float32 vector, little-endian."""
    return hashlib.sha256(np.asarray(vector, dtype="<f4").tobytes()).hexdigest()


def _texts(scenario: Scenario) -> list[tuple[str, str, str, str]]:
    """Id, owner, kind and text of all records of a scenario. Goal ids hold no `/`, so voices cannot meet them."""
    voices = [(f"{c.id}/voice/", c.id, VOICE, "\n".join(c.voice)) for c in scenario.characters if c.voice]
    return voices + [(goal_key(c.id, g.id), c.id, g.kind, g.text) for c, g in scenario.goals()]


def _encode(model: LatentModel, scenario: Scenario, record_id: str, kind: str, text: str) -> NDArray[np.float32]:
    if kind != VOICE:
        return model.encode(text)[0].numpy()
    voice = next(c.voice for c in scenario.characters if record_id == f"{c.id}/voice/")
    return task_vector(model.encode(voice, long="mean")).numpy()


def _open(folder: Path, model: LatentModel, *, create: bool) -> VectorStore:
    options: dict[str, Any] = {"encoder": model.latent_config.encoder_identity, "dim": model.latent_config.z_dim}
    try:
        return VectorStore.open(folder, **options, readonly=not create)
    except StorageFailure as error:
        raise RunWriteError(f"cannot open the store of goals: {error}") from error
    except VectorStoreError as error:
        kind = RunMismatch if type(error).__name__.endswith("Mismatch") else RunDamaged
        raise kind(f"the store of goals does not fit this run: {error}") from error
