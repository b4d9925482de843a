"""The arm `voice`: a task vector, alone and beside a goal; and the two measures of manner."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.errors import ExperimentError
from agents.experiments.lexical import sentence_words, speech_share
from agents.experiments.pairs.arms import ARMS
from agents.experiments.pairs.options import AnnealedOptions, Options, VoiceOptions
from agents.experiments.pairs.writing import Sample, Task
from steer.errors import TextError
from steer.latents.bigvae import guide, topic_sentence
from steer.latents.mixing import mix, task_vector
from steer.latents.pull import Pull
from steer.writing.config import WritingConfig
from tests.agents.experiments.kit import PAIRS, experiment

SAMPLES = ("A tree.", "Two big red boats.")


def write(model: Any, method: str, options: Options) -> list[Sample]:
    seeds = list(range(1, len(PAIRS) + 1))
    return ARMS[method](Task(model, PAIRS, PAIRS, seeds, WritingConfig(spans=3, guidance_scale=1)), options)


def test_a_voice_of_no_weight_is_the_arm_without_it(model: Any) -> None:
    silent = VoiceOptions(samples=SAMPLES, weight=0, goal=False)
    assert write(model, "voice", silent) == write(model, "unguided", Options())
    beside = VoiceOptions(samples=SAMPLES, weight=0, schedule="linear", guidance_scale=1.5)
    assert write(model, "voice", beside) == write(
        model, "annealed", AnnealedOptions(schedule="linear", guidance_scale=1.5)
    )


def test_a_voice_moves_what_is_written_and_needs_no_goal(model: Any) -> None:
    plain = [sample.ids for sample in write(model, "unguided", Options())]
    alone = write(model, "voice", VoiceOptions(samples=SAMPLES, weight=0.5, goal=False))
    assert [sample.ids for sample in alone] != plain
    # A goal of which nothing is mixed in is no goal.
    without = VoiceOptions(samples=SAMPLES, weight=0.5, schedule="constant", start=0)
    assert [s.ids for s in write(model, "voice", without)] == [s.ids for s in alone]


def test_an_arriving_goal_leaves_the_voice_no_room(model: Any) -> None:
    """Where the goal has weight 1 throughout, the voice changes nothing."""
    full = AnnealedOptions(schedule="constant", start=1.0)
    voiced = VoiceOptions(samples=SAMPLES, weight=0.5, schedule="constant", start=1.0)
    assert write(model, "voice", voiced) == write(model, "annealed", full)


def test_bigvaes_mixes_are_constant_pulls(model: Any) -> None:
    draft, goal = model.encode(["A bee.", "My cat."])[:, None]
    voice = task_vector(model.encode(SAMPLES, long="mean"))
    topic = mix(draft, [Pull(voice, torch.tensor([0.15])), Pull(goal, torch.tensor([0.10]))], 0)
    task = mix(draft, [Pull(voice, torch.tensor([0.15]))], 0)
    for ours, named in ((topic, topic_sentence(draft, goal, voice)), (task, guide(draft, voice))):
        # The direction is theirs. Our norm is the mean of those that went in by their weights, theirs the plain one.
        assert float(torch.nn.functional.cosine_similarity(ours, named)) == pytest.approx(1, abs=1e-6)


def test_samples_stand_in_the_file_or_beside_it(tmp_path: Path) -> None:
    (tmp_path / "voice.txt").write_text("A tree.\n\n  Two big red boats. \n", encoding="utf-8")
    arm = {"name": "voiced", "method": "voice", "samples": "voice.txt"}
    loaded = experiment(tmp_path, arms=[arm])
    assert loaded.arms[0].options == VoiceOptions(samples=SAMPLES)
    assert loaded == experiment(tmp_path, arms=[arm | {"samples": list(SAMPLES)}])
    assert loaded.settings()["arms"][0]["samples"] == list(SAMPLES)  # a changed file is another experiment
    (tmp_path / "voice.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ExperimentError, match=r"arms.0.samples: .*at least 1 item"):
        experiment(tmp_path, arms=[arm])
    with pytest.raises(TextError, match="file of samples"):
        experiment(tmp_path, arms=[arm | {"samples": "nowhere.txt"}])


def test_speech_by_hand() -> None:
    assert speech_share('"Come here," said Tom. "Now!"') == 3 / 5
    assert speech_share("\u201cCome,\u201d said Tom.") == 1 / 3
    assert speech_share("He couldn't come.") == 0
    assert speech_share('Tom said, "Come\nHe came.') == 1 / 5  # a quote that was never closed ends with its line
    assert np.isnan(speech_share(' "" '))


def test_sentences_by_hand() -> None:
    assert sentence_words('He came. "Who is it?" asked Mr. Fox. Nobody') == pytest.approx((2 + 3 + 3 + 1) / 4)
    assert np.isnan(sentence_words(" ... "))
