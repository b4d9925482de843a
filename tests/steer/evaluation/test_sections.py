"""The figures in words, for the screen and for a model card."""

from typing import Any

from steer.evaluation.sections import figure_sections, quality_sections
from steer.training.card import figure_table, sample_lines

SHARE = (0.5, 0.25, 0.75)
QUALITY: dict[str, Any] = {
    "similarity": "given",
    "reconstruction": {
        "spans": 7,
        "router": {"bleu": 0.125, "similarity": 0.5, "unrelated": 0.2, "nearest": SHARE},
        "decoder": {"bleu": 0.25, "similarity": 0.6, "unrelated": 0.2, "nearest": SHARE},
    },
    "bound": {
        **{"spans": 7, "samples": 32, "elbo": 7.1, "importance": 6.0},
        **{"noisy_nll": 1.6, "kl": 5.5, "base_nll": 3.1},
    },
    "paths": {
        **{"paths": 7, "t": [0.0, 0.5, 1.0], "to_a": [0.4, 0.3, 0.2], "to_b": [0.2, 0.3, 0.4], "unrelated": 0.1},
        **{"base_nll": [1.5, 1.25, 1.5], "rises": SHARE, "falls": SHARE, "spearman": 0.75, "as_fluent": SHARE},
        "distinct": 2.5,
    },
    "averages": {
        "stories": 7,
        "rest": 4,
        "sizes": {
            "1": {"one_story": {"own": SHARE, "base_nll": 2.0, "rest": SHARE}},
            "2": {
                "one_story": {"own": SHARE, "base_nll": 2.0, "rest": SHARE},
                "mixed": {"own": SHARE, "base_nll": 3.0},
            },
        },
    },
    "contexts": {
        **{"sentences": 7, "nearest": SHARE, "fits": SHARE, "named": SHARE, "other_named": None, "differ": SHARE},
        **{"base_nll": 1.5, "swapped_nll": 2.5},
    },
}
PLAYS = {"lines": 7, "base_nll": 2.25, "ends": SHARE, "speech": SHARE, "own_speech": (1.0, 1.0, 1.0)}
FIGURES = {"quality": QUALITY, "plays": PLAYS}
FEW_COLUMNS = 80


def test_all_figures_are_told_on_a_narrow_screen() -> None:
    sections = quality_sections(FIGURES)
    assert [section.title for section in sections] == [
        *("Reconstruction", "Likelihood", "Interpolation", "Averages", "Two contexts", "Plays"),
    ]
    rows = [row for section in sections for row in section.rows]
    measures, values = zip(*rows, strict=True)
    right = [*values, *(section.about for section in sections)]
    assert max(map(len, measures)) + 4 + max(map(len, right)) <= FEW_COLUMNS
    told = dict(rows)
    assert told["router: BLEU-4, 0 to 1"] == "0.125" and told["decoder: BLEU-4, 0 to 1"] == "0.250"
    assert told["ELBO in parts: NLL / KL divergence"] == "1.60 / 5.50"
    assert told["t"] == "0 / 0.5 / 1" and told["cosine with B"] == "0.20 / 0.30 / 0.40"
    assert told["2 of a story: nearest to the story's rest"] == "50% (25% to 75%)"
    assert told["2, one story / several: base NLL"] == "2.00 / 3.00" and told["1 span: base NLL"] == "2.00"
    assert (
        told["base NLL of the plays' lines"] == "2.25"
        and told["the plays' own lines that are speech"] == "100% (100% to 100%)"
    )
    assert told["names someone of the other context only"] == "-"


def test_what_was_not_measured_is_left_out() -> None:
    assert figure_sections({}) == []
    sections = figure_sections({"latents": {"kl": 90.4}, "quality": {"similarity": "given"}, "reach": {}})
    assert [(section.title, section.rows) for section in sections] == [
        ("Latents", (("KL divergence, nats per span", "90"),)),
    ]


def test_a_card_has_the_same_rows_and_the_samples_as_they_came() -> None:
    lines = figure_table(FIGURES)
    rows = [row for section in quality_sections(FIGURES) for row in section.rows]
    assert [line for line in lines if line.startswith("| ") and "**" not in line] == [
        "| | |",
        *(f"| {measure} | {value} |" for measure, value in rows),
    ]
    samples = [{"context": "Once\nthere was.", "goal": "It rained.", "unguided": "", "annealed": "It  poured."}]
    assert sample_lines(samples)[2:-1] == [
        "1. Once there was.",
        "   - goal: It rained.",
        "   - unguided: (nothing)",
        "   - annealed: It poured.",
    ]
    assert sample_lines([]) == []
