"""`steer apply`."""

from pathlib import Path

import pytest
import torch

from steer.displayed import printable
from steer.latents.mixing import apply_op
from steer.latents.pull import Pull
from steer.models.latent_model import LatentModel
from steer.writing.guided import write_guided
from steer.writing.sampling import SamplingConfig
from tests.agents.cli.kit import SPAN, document, error_line, steer

TEXTS = ["A fox.", "The hen.", "An owl sat."]


@pytest.fixture(scope="module")
def folder(saved: Path) -> Path:
    return saved


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LatentModel:
    return LatentModel.from_pretrained(folder)


def test_apply_agrees_with_the_library(folder: Path, loaded: LatentModel) -> None:
    context = "The sun was out and the fox ran. "
    start = loaded.encode_ids([loaded.to_ids(context)[-SPAN:]])
    moved = apply_op(start, loaded.encode(["A day.", "Hot."]), loaded.encode(["A night."]), 0.7)
    sampling = SamplingConfig(temperature=0.7, top_p=0.95)  # the command's
    pull = Pull(moved, torch.ones(1))
    wanted = write_guided(loaded, [context], pulls=[pull], spans=1, seeds=[3], sampling=sampling)[0]
    options = ("--from", "A day.", "--from", "Hot.", "--to", "A night.", "--strength", 0.7, "--seed", 3)
    answer = document(steer("apply", "-c", context, *options, "-m", folder, "--json"))
    assert answer["text"] == wanted.text
    assert answer["similarity_to_start"] == pytest.approx(torch.cosine_similarity(start, moved).item(), abs=1e-6)
    assert steer("apply", "-c", context, *options, "-m", folder).stdout == printable(wanted.text) + "\n"


def test_an_op_that_changes_nothing_keeps_the_latent(folder: Path) -> None:
    def similarity(*options: object) -> float:
        return document(steer("apply", "-c", "The fox ran.", *options, "-m", folder, "--json"))["similarity_to_start"]

    assert similarity("--op", "A hen.", "--weight", 0) == pytest.approx(1)
    assert similarity("--from", "A hen.", "--to", "A hen.") == pytest.approx(1)
    assert similarity("--op", "A hen.", "--op", "An owl.") < 0.999


def test_apply_needs_a_context(folder: Path) -> None:
    assert "context is empty" in error_line(steer("apply", "-c", " ", "--op", "A hen.", "-m", folder))
