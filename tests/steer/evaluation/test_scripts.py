"""Lines of plays: which are drawn, and what is measured on them."""

from pathlib import Path

import numpy as np
import pytest

from steer.evaluation.scripts import draw_lines, is_speech, play_figures
from tests.steer.tiny import tiny_model

STORY = 'It was cold.\n"Hi," said Ann.\n"Hi," said Ben.\n"Are you {n}?" asked Ann.\n"I am," said Ben.'
STORIES = [STORY.format(n=n) for n in ("hungry", "tired", "sad")]


def test_lines_have_two_before_them() -> None:
    drawn = draw_lines([*STORIES, "Nobody speaks here."], 9, np.random.default_rng(0))
    assert len(drawn) == 3
    for line in drawn:
        assert line.context.startswith("Ann: Hi.\nBen: Hi.\n") and line.context.endswith(f"\n{line.who}:")
        assert (line.who, line.speech) in {("Ben", "I am.")} | {
            ("Ann", f"Are you {n}?") for n in ("hungry", "tired", "sad")
        }
    assert draw_lines(STORIES, 9, np.random.default_rng(1)) == draw_lines(STORIES, 9, np.random.default_rng(1))
    assert len(draw_lines(STORIES, 2, np.random.default_rng(0))) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" I am.", True), ("", False), ('"I am."', False), (" I am, said Ben.", False), (" The benches are wet.", True)],
)
def test_a_line_is_speech(text: str, expected: bool) -> None:
    assert is_speech(text, "Ben") is expected


def test_the_figures_of_a_model(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama)
    found = play_figures(model, STORIES, count=3)
    assert found is not None and found["lines"] == 3 and 0 < found["base_nll"] < 20
    assert found["own_speech"] == (1, 1, 1) and all(0 <= found[name][0] <= 1 for name in ("ends", "speech"))
    assert found == play_figures(model, STORIES, count=3)
    assert play_figures(model, ["Nobody speaks here."]) is None
