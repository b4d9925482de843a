"""Stories as plays: who speaks, what is told between, and what is left alone."""

import pytest

from steer.data.dialogue import to_script

START = '"Well," said the owl.\n'
REST = '\n"Good night," said the owl.\n"Good night," said Tom.\n"Sleep well," the owl said.'


def play(paragraph: str) -> list[str]:
    """The lines of a paragraph, which stands in a talk of Tom and an owl."""
    script = to_script(START + paragraph + REST)
    assert script is not None and script.startswith("Owl: Well.\n")
    assert script.endswith("\nOwl: Good night.\nTom: Good night.\nOwl: Sleep well.")
    return script.splitlines()[1:-3]


@pytest.mark.parametrize(
    ("paragraph", "lines"),
    [
        ('"I am hungry," said Tim.', ["Tim: I am hungry."]),
        ('"Are you hungry?" the wise old fox asked.', ["Fox: Are you hungry?"]),
        ('Mia asked, "Where is my doll?"', ["Mia: Where is my doll?"]),
        ('Then the happy fox said: "Look!"', ["Fox: Look!"]),
        ('His mom said, "No." Tim cried.', ["Mom: No.", "Tim cried."]),
        ('"I fell," cried Mrs. Fox.', ["Mrs. Fox: I fell."]),
        ('"Dinner!" called Tim\'s dad.', ["Dad: Dinner!"]),
        ('"I see," said Ben, "that you are here."', ["Ben: I see. That you are here."]),
        ('"Stop!" Sue shouted. "There is a car."', ["Sue: Stop! There is a car."]),
        ('"Go!" said Ann. Ben said, "No."', ["Ann: Go!", "Ben: No."]),
        ('Mia was sad and said, "I lost it."', ["Mia was sad.", "Mia: I lost it."]),
        ('Ben looked up. "A bird!"', ["Ben looked up.", "Ben: A bird!"]),
        ('Ben ran home. He cried, "Mom!"', ["Ben ran home.", "Ben: Mom!"]),
        ("It rained all day.", ["It rained all day."]),
    ],
)
def test_who_speaks(paragraph: str, lines: list[str]) -> None:
    assert play(paragraph) == lines


def test_two_speakers_take_turns_where_nobody_is_named() -> None:
    story = '"Hello," said Ann.\n"Hello," said Ben.\n"How are you?"\n"I am well."'
    assert to_script(story) == "Ann: Hello.\nBen: Hello.\nAnn: How are you?\nBen: I am well."


@pytest.mark.parametrize(
    "story",
    [
        "",
        "Nobody speaks here.",
        '"Hello," said Ann.\n"Hello," said Ben.',  # too little speech
        '"Hello," said Ann.\n"Oh," said Ann.\n"Well," said Ann.',  # one speaker
        '"Hello," said Ann.\n"Hello," said Ben.\n"Oh," said Ann.\n"Well, said Ben.',  # marks that do not pair
        'She read "The Fox" to "all" of us in "May".',  # no speech
        '"A."\n"B."\n"C."\n"D," said Ann.\n"E," said Ben.\n"F," said Ann.',  # half of it by nobody knows whom
    ],
)
def test_a_story_that_is_no_play_is_left_out(story: str) -> None:
    assert to_script(story) is None


def test_a_play_begins_with_speech() -> None:
    story = 'Ann had a dog. It ran.\nAnn met Ben. "Hi," said Ben.\n"Hi," said Ann. They sat.\n"Bye," said Ben.'
    assert to_script(story) == "Ben: Hi.\nAnn: Hi.\nThey sat.\nBen: Bye."


def test_no_line_of_a_play_is_empty() -> None:
    story = '"Hi," said Ann.\n\n"Hi," said Ben.\n"  " said Ann.\n"Bye," said Ann.\n\n\n"Bye," said Ben.'
    script = to_script(story)
    assert script is not None and all(line.strip() for line in script.splitlines())
