"""Words in figures."""

import io
import logging
import warnings

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.plots.lettering import print_figure


def draw(title: str, *, log: bool = False) -> tuple[Figure, bytes]:
    figure = Figure(figsize=(4, 2))
    axis = figure.subplots()
    axis.plot([1, 10, 1000], [1, 2, 3], label=title)
    if log:
        axis.set_xscale("log")
    axis.set_title(title)
    axis.legend()
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        print_figure(FigureCanvasAgg(figure), image, format="png", dpi=50)
    return figure, image.getvalue()


def test_words_are_no_mathematics_and_no_control_characters() -> None:
    figure, image = draw("$\\bad{ costs $5$ \x1b]0;t\x07\u202e", log=True)
    assert image.startswith(b"\x89PNG")
    assert figure.axes[0].get_title() == "$\\bad{ costs $5$ \ufffd]0;t\ufffd\ufffd"
    assert any("mathdefault" in text.get_text() for text in figure.axes[0].get_xticklabels())  # powers of ten stay


def test_what_no_font_has_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        draw("\U0010fffd\U0010fffc a private letter, \u200d\ufe0fjoined")  # of the private use area
    (record,) = caplog.records
    assert "2 of a figure's characters (U+10FFFC, U+10FFFD)" in record.getMessage()
    caplog.clear()
    draw("Größe, привет, ελληνικά")
    assert not caplog.records


def test_the_usual_font_is_left_alone() -> None:
    plain, _ = draw("plain")
    assert plain.axes[0].title.get_fontfamily() == Figure().text(0, 0, "x").get_fontfamily()
