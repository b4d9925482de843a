"""Evaluation: pairs, ranks, intervals and figures, on hand-made cases and a tiny model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from steer.data.pairs import Pair, make_pairs
from steer.errors import CorpusError
from steer.evaluation.decoding import ANYTHING, nlls
from steer.evaluation.endings import ARMS, arrival, ending, write_arm
from steer.evaluation.evaluate import evaluate
from steer.evaluation.judge import Judge, judge_folder
from steer.evaluation.latents import latent_figures
from steer.evaluation.statistics import share_with_interval
from steer.models.latent_model import LatentModel
from steer.sentences import full_sentences
from steer.writing.config import WritingConfig
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import tiny_model, write_guided

SENTENCES = ["The fox ran.", "It sat.", '"No!" said he.', "Was it?", "A hen sang.", "Oh!", "It ate.", "The end."]
STORIES = [f"Once {i}. " + " ".join(SENTENCES[i % 3 :] + SENTENCES[: i % 5]) for i in range(12)]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama, span_tokens=24)


def unit(angle: float) -> Tensor:
    return torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)


def test_sentences_keep_their_quotes_and_drop_what_is_cut_off() -> None:
    assert full_sentences('He ran. "Stop!" she cried. And th') == ["He ran. ", '"Stop!" ', "she cried. "]


def test_pairs_come_from_one_story_and_do_not_overlap(model: LatentModel) -> None:
    pairs = make_pairs(model, STORIES, 8, context_tokens=16)
    assert len({pair.id for pair in pairs}) == 8
    for pair in pairs:
        story = STORIES[int(pair.id)]
        assert story.startswith(pair.context)
        assert pair.terminal in story[len(pair.context) :]
        assert len(model.to_ids(" " + pair.terminal)) <= model.span_tokens
    assert pairs == make_pairs(model, STORIES, 8, context_tokens=16)
    assert pairs != make_pairs(model, STORIES, 8, context_tokens=16, seed=1)


def test_too_few_stories_for_the_pairs(model: LatentModel) -> None:
    with pytest.raises(CorpusError, match="only 0 of 1 stories"):
        make_pairs(model, ["Short."], 3)


def test_fewer_pairs_will_do_if_that_is_said(model: LatentModel) -> None:
    there = len(make_pairs(model, STORIES, 100, context_tokens=16, fewest=2))
    assert 2 <= there < 100
    with pytest.raises(CorpusError, match=f"100 are needed: give more text, or ask for at most {there} pairs"):
        make_pairs(model, STORIES, 100, context_tokens=16)
    with pytest.raises(CorpusError, match=f"{there + 1} are needed"):
        make_pairs(model, STORIES, 100, context_tokens=16, fewest=there + 1)


def test_ranks_by_hand() -> None:
    places = {"a": 0.0, "b": 1.0, "c": 2.0, "near a": 0.1, "near b": 0.9, "also near b": 1.1}

    def embed(texts: Sequence[str]) -> Tensor:
        return torch.stack([unit(places[text]) for text in texts])

    assert arrival(["near a", "near b", "also near b"], ["a", "b", "c"], embed).tolist() == [1, 1, 2]


def test_ranks_stay_within_groups_of_a_hundred() -> None:
    def embed(texts: Sequence[str]) -> Tensor:
        return torch.stack([unit(int(text) % 100 * 0.01) for text in texts])

    names = [str(i) for i in range(200)]  # each has a double in the other group, which must not compete
    assert (arrival(names, names, embed) == 1).all()


def test_what_is_left_behind_the_last_hundred_has_as_many_rivals() -> None:
    def embed(texts: Sequence[str]) -> Tensor:
        return torch.stack([unit(float(text)) for text in texts])

    terminals = [str(0.01 * i) for i in range(103)]
    ranks = arrival(["0.0"] * 103, terminals, embed)  # all endings lie at the first terminal of all
    assert ranks[:100].tolist() == list(range(1, 101)) and ranks[100:].tolist() == [98, 99, 100]


def test_share_and_interval() -> None:
    share, low, high = share_with_interval(np.array([True] * 50 + [False] * 50))
    assert share == 0.5
    # The normal approximation: 0.5 +- 1.96 * sqrt(0.25 / 100).
    assert low == pytest.approx(0.402, abs=0.02) and high == pytest.approx(0.598, abs=0.02)
    assert share_with_interval(np.array([True] * 9)) == (1.0, 1.0, 1.0)


def test_the_ending_is_the_last_span_with_text() -> None:
    assert ending((" One.", " Two.", " ", "")) == " Two."
    assert ending(("", " ")) == ""


def test_latent_figures_have_the_laws_of_their_definitions(model: LatentModel) -> None:
    figures = latent_figures(model, STORIES, rows=10, spans=2, context=16)
    assert figures["kl"] == pytest.approx(0.5 * figures["latent_norm"] ** 2, rel=0.3)
    assert 0 <= figures["active_units"] <= model.latent_config.z_dim
    assert 0 <= figures["accuracy"] <= 1
    # A model that was not trained knows nothing: about the logarithm of its vocabulary.
    assert figures["nll_null"] == pytest.approx(np.log(258), rel=0.15)
    assert figures == latent_figures(model, STORIES, rows=10, spans=2, context=16)


def test_latent_figures_of_a_minihf_folder(tmp_path: Path) -> None:
    base, folder = make_minihf_folder(tmp_path, 7)
    model = LatentModel.from_minihf(folder, base=base, span_tokens=12)
    figures = latent_figures(model, STORIES, rows=6, spans=1, context=8)
    assert all(np.isfinite(value) for value in figures.values())
    assert figures["nll_own"] != figures["nll_wrong"] != figures["nll_null"]


def test_fluency_is_the_mean_nll_under_the_bare_base(model: LatentModel) -> None:
    row = write_guided(model, ["The fox"], spans=1, seeds=3)[0]
    ids = torch.tensor([[*row.context, *row.ids]])
    with torch.no_grad(), model.peft.disable_adapter():
        logits = model.peft.get_base_model()(ids).logits[0].log_softmax(-1)
    start = len(row.context)
    wanted = -np.mean([float(logits[start - 1 + i, token]) for i, token in enumerate(row.ids)])
    assert nlls(model, [row.context], [row.ids])[0] == pytest.approx(wanted, abs=1e-4)


def test_arms_share_their_seeds_and_do_not_depend_on_the_batch(model: LatentModel) -> None:
    pairs = [Pair(str(i), f"The fox {i}.", "A hen sang.") for i in range(3)]
    together, alone = (write_arm(model, pairs, WritingConfig(spans=2), guided=True, batch=batch) for batch in (3, 1))
    assert [w.text for w in together] == [w.text for w in alone]


class FirstLetters:
    """A judge that looks at the letters of a text."""

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        rows = [[float(text.count(letter)) + 0.01 for letter in "aeiourst"] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def test_evaluate_gives_every_arm(model: LatentModel) -> None:
    seen = []
    figures = evaluate(
        model,
        STORIES * 2,
        pairs=3,
        spans=2,
        judge=FirstLetters(),  # type: ignore[arg-type]
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert figures["endings"]["arms"].keys() == ARMS.keys()
    for arm in figures["endings"]["arms"].values():
        share, low, high = arm["nearest"]
        assert 0 <= low <= share <= high <= 1
        assert np.isfinite(arm["base_nll"])
    assert figures["quality"]["similarity"] == "given" and figures["quality"]["paths"]["paths"] == 3
    pairs = make_pairs(model, STORIES * 2, 3)
    samples = figures["endings"]["samples"]
    assert [(sample["context"], sample["goal"]) for sample in samples] == [(p.context, p.terminal) for p in pairs]
    unguided = write_arm(model, pairs, WritingConfig(spans=2, limits=ANYTHING), guided=False)
    assert [sample["unguided"] for sample in samples] == [ending(row.spans).strip() for row in unguided]
    assert seen[-1][1] == seen[-1][2] == 3


def test_without_a_judge_the_endings_are_left_out(model: LatentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.evaluation.evaluate.judge_folder", lambda: None)
    figures = evaluate(model, STORIES, pairs=3)
    assert figures.keys() == {"latents", "quality"} and figures["quality"]["similarity"] == "encoder"


def test_too_little_text_is_told_before_anything_is_measured(model: LatentModel) -> None:
    seen = []
    with pytest.raises(CorpusError, match="3 are needed"):
        evaluate(model, ["Short."], pairs=3, progress=lambda *told: seen.append(told))
    assert seen == []


@pytest.mark.skipif(judge_folder() is None, reason="the extra `judge` is not installed")
def test_the_judge_knows_what_belongs_together() -> None:
    goal, near, far = Judge().embed(
        ["The dog jumped into the lake.", "A puppy leapt into the water.", "She paid the tax."]
    )
    assert float(goal.norm()) == pytest.approx(1, abs=1e-5)
    assert float(goal @ near) > float(goal @ far) + 0.3
