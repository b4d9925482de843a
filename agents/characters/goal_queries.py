"""Wishes: goals that are found when a run starts, from what a character is like or from stored passages.

A wish names a text, or goes by the character's description. Without an index its sentences are the goals. With one, the
goals are the passages that are nearest to it in meaning: "endings like this one". A passage is left out where it could
not be a goal: without a letter, longer than a span, or with words that stand in the visible text already.

What was found becomes part of the scenario, which the run keeps; so a run never looks for its goals twice, and needs no
index to be resumed.
"""

from collections.abc import Iterator

from agents.errors import GoalError
from agents.index.build import POSITION, SPAN, SPANS, open_index
from agents.scenarios.schema import Character, Goal, Scenario, Wish
from steer.models.latent_model import LatentModel
from steer.quotations import shared_words
from steer.sentences import split_sentences

SPARE = 20  # passages looked at for each that is wished for, since some cannot be goals


def resolve_wishes(scenario: Scenario, model: LatentModel) -> Scenario:
    """The scenario with its wishes turned into goals; one without wishes is returned as it is.

    Raises:
        GoalError: fewer goals were found than wished for.
        VectorStoreError: an index is not there, or is of another encoder.
    """
    if not any(character.wishes for character in scenario.characters):
        return scenario
    characters = [_resolve(scenario, model, character) for character in scenario.characters]
    data = scenario.model_dump()
    data["characters"] = [character.model_dump() for character in characters]
    return Scenario.model_validate(data)


def _resolve(scenario: Scenario, model: LatentModel, character: Character) -> Character:
    goals = list(character.goals)
    for number, wish in enumerate(character.wishes, 1):
        taken = {goal.text for goal in goals}
        found = (item for item in _texts(scenario, model, character, wish) if item[0] not in taken)
        chosen = [item for item, _ in zip(found, range(wish.count), strict=False)]
        if len(chosen) < wish.count:
            where = "its sentences" if wish.among is None else f"the passages in {wish.among}"
            raise GoalError(
                f"wish {number} of {character.id!r} is for {wish.count} goals, and {where} gave {len(chosen)}; lower "
                "count, or give it another text to go by"
            )
        options = {"kind": wish.kind, "weight": wish.weight, "by_turn": wish.by_turn}
        names = _names(f"wish-{number}", {goal.id for goal in goals})
        goals += [
            Goal(id=name, text=text, source=source, **options)
            for name, (text, source) in zip(names, chosen, strict=False)
        ]
    return character.model_copy(update={"goals": tuple(goals), "wishes": ()})


def _texts(scenario: Scenario, model: LatentModel, character: Character, wish: Wish) -> Iterator[tuple[str, str]]:
    """Texts that could be goals, with where they are from, best first."""
    like = wish.like or character.description
    visible = "\n".join([scenario.opening, *(c.name for c in scenario.characters)])
    if wish.among is None:
        texts = (
            (sentence, f"of {character.id}'s {'wish' if wish.like else 'description'}")
            for sentence in split_sentences(like)
        )
    else:
        texts = _passages(model, wish, like)
    seen: set[str] = set()
    for text, source in texts:
        ids = model.encoded_ids(text)
        if (
            text not in seen
            and any(map(str.isalpha, text))
            and 0 < len(ids) <= model.span_tokens
            and not shared_words(text, visible)
        ):
            seen.add(text)
            yield text, source


def _passages(model: LatentModel, wish: Wish, like: str) -> Iterator[tuple[str, str]]:
    assert wish.among is not None
    query = model.encode(like, long="mean")[0].numpy()
    with open_index(wish.among, model) as store:
        where = {"ending": True} if wish.endings else None
        hits = store.search(query, wish.count * SPARE, kind=SPAN, where=where)
    for hit in hits:
        place = f"passage {hit.record.extra[POSITION] + 1} of {hit.record.extra[SPANS]}"
        yield " ".join(hit.record.text.split()), f"{hit.record.owner}, {place}"


def _names(stem: str, taken: set[str]) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        if (name := f"{stem}-{number}") not in taken:
            yield name
