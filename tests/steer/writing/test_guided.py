"""Guided writing: the laws that hold from the pull to the text."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.errors import GuidanceError, TextError
from steer.latents.mixing import mix
from steer.latents.pull import Pull
from steer.latents.schedules import make_schedule
from steer.models.latent_model import LatentModel
from steer.writing.guided import Written
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import open_writer
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import SPAN, Z_DIM, assert_near, sharpen, tiny_model, write_guided

GREEDY = SamplingConfig(temperature=0)
OPENINGS = ["Once upon a time", "The", "A fox"]


@pytest.fixture(scope="module", params=["interleaved", "minihf"])
def model(request: pytest.FixtureRequest, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    if request.param == "interleaved":
        return sharpen(tiny_model(tiny_llama))
    base, checkpoint = make_minihf_folder(tmp_path_factory.mktemp("minihf"), seed=7)
    return LatentModel.from_minihf(checkpoint, base, span_tokens=SPAN, device="cpu")


def latent(model: LatentModel, seed: int = 0, rows: int | None = None) -> Tensor:
    shape = (model.latent_config.z_dim,) if rows is None else (rows, model.latent_config.z_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texts(written: list[Written]) -> list[tuple[int, ...]]:
    return [row.ids for row in written]


def test_what_comes_back_fits_together(model: LatentModel) -> None:
    pull = Pull(latent(model), make_schedule("bridge", 3))
    written = write_guided(model, OPENINGS, pulls=[pull], spans=3, seeds=[1, 2, 3])
    for row, opening in zip(written, OPENINGS, strict=True):
        assert row.text == model.to_text(row.ids)
        assert row.latents.shape == row.drafts.shape == (len(row.spans), model.latent_config.z_dim)
        assert list(row.context) == model.to_ids(opening)
        assert len(row.ids) == 3 * SPAN or row.ended


def test_zero_weights_write_the_unguided_text_bit_for_bit(model: LatentModel) -> None:
    plain = write_guided(model, OPENINGS, spans=3, seeds=[1, 2, 3])
    zero = torch.zeros(3)
    pulls = [Pull(latent(model), zero), Pull(latent(model, 1), zero, avoid=True)]
    assert texts(write_guided(model, OPENINGS, pulls=pulls, spans=3, seeds=[1, 2, 3])) == texts(plain)
    for row in plain:
        assert not row.latents.any()
        assert not row.drafts.any()


def test_weight_one_writes_from_exactly_the_terminal(model: LatentModel) -> None:
    terminal = latent(model)
    written = write_guided(model, OPENINGS, pulls=[Pull(terminal, torch.ones(3))], spans=3, seeds=[1, 2, 3])
    writer = open_writer(model, [model.to_ids(o) for o in OPENINGS], seeds=[1, 2, 3], spans=3)
    for _ in range(3):
        writer.write(terminal.expand(3, -1))
    for row, result in enumerate(written):
        assert torch.equal(result.latents, terminal.expand(len(result.spans), -1))
        assert not result.drafts.any()
        assert list(result.ids) == writer.ids(row)


def test_each_span_is_written_from_the_mix_of_its_draft(model: LatentModel) -> None:
    pulls = [
        Pull(latent(model), make_schedule("bridge", 3)),
        Pull(latent(model, 1), torch.tensor([0.2, 0.1, 0.0])),
        Pull(latent(model, 2), torch.tensor([0.5, 0.5, 0.5]), avoid=True),
    ]
    along = partial(mix, method="slerp", rescale="draft")
    written = write_guided(model, OPENINGS, pulls=pulls, spans=3, seeds=[1, 2, 3], mix=along)
    writer = open_writer(model, [model.to_ids(o) for o in OPENINGS], seeds=[1, 2, 3], spans=3)
    for step in range(3):
        draft = writer.draft()
        z = along(draft, pulls, step)
        writer.write(z)
        for row, result in enumerate(written):
            if step < len(result.spans) and not (step and writer.ended[row]):
                assert_near(result.drafts[step], draft[row], atol=1e-5)
                assert_near(result.latents[step], z[row], atol=1e-5)
    assert [list(result.ids) for result in written] == [writer.ids(row) for row in range(3)]


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_a_row_is_written_the_same_alone_as_in_a_batch(model: LatentModel, scale: float) -> None:
    latents, weights = latent(model, rows=3), torch.tensor([[0.2, 0.6], [0.5, 1.0], [1.0, 0.3]])
    options = {"spans": 2, "guidance_scale": scale, "sampling": GREEDY}
    together = write_guided(model, OPENINGS, pulls=[Pull(latents, weights)], seeds=[1, 2, 3], **options)
    for row in range(3):
        pull = Pull(latents[row : row + 1], weights[row : row + 1])
        alone = write_guided(model, [OPENINGS[row]], pulls=[pull], seeds=[row + 1], **options)
        assert texts(alone) == [together[row].ids]
        assert_near(alone[0].latents, together[row].latents, atol=1e-4)


def test_a_row_of_weight_zero_is_unguided_whatever_its_neighbours_are(model: LatentModel) -> None:
    weights = torch.tensor([[0.0, 0.0], [0.5, 1.0], [0.0, 0.7]])
    pull = Pull(latent(model), weights)
    together = write_guided(model, OPENINGS, pulls=[pull], spans=2, seeds=[1, 2, 3])
    plain = write_guided(model, OPENINGS[:1], spans=2, seeds=[1])
    assert together[0].ids == plain[0].ids
    alone = write_guided(model, OPENINGS[2:], pulls=[Pull(latent(model), weights[2])], spans=2, seeds=[3])
    assert together[2].ids == alone[0].ids


def test_seeds_decide_and_one_seed_gives_each_row_its_own(model: LatentModel) -> None:
    pull = Pull(latent(model), make_schedule("constant", 2))
    first, again, other = (write_guided(model, ["The"] * 2, pulls=[pull], spans=2, seeds=s) for s in (1, 1, 2))
    assert texts(first) == texts(again)
    assert texts(first) != texts(other)
    assert first[0].ids != first[1].ids


def test_a_schedule_of_scales_equals_a_number_when_constant(model: LatentModel) -> None:
    options = {"pulls": [Pull(latent(model), torch.full((2,), 0.8))], "spans": 2, "seeds": [1, 2, 3]}
    constant = write_guided(model, OPENINGS, guidance_scale=1.5, **options)
    assert texts(write_guided(model, OPENINGS, guidance_scale=torch.full((2,), 1.5), **options)) == texts(constant)
    assert texts(write_guided(model, OPENINGS, guidance_scale=1.0, **options)) == texts(
        write_guided(model, OPENINGS, **options)
    )
    annealed = write_guided(model, OPENINGS, guidance_scale=torch.tensor([1.0, 2.0]), **options)
    assert annealed[0].ids[:SPAN] == write_guided(model, OPENINGS, **options)[0].ids[:SPAN]


def test_contexts_may_be_token_ids(model: LatentModel) -> None:
    ids = [model.to_ids(opening) for opening in OPENINGS]
    assert texts(write_guided(model, ids, spans=1, seeds=7)) == texts(write_guided(model, OPENINGS, spans=1, seeds=7))


def test_wrong_arguments_are_refused_with_what_to_try(model: LatentModel) -> None:
    good = Pull(latent(model), torch.ones(2))
    with pytest.raises(GuidanceError, match="spans must be an int of at least 1; got 0"):
        write_guided(model, OPENINGS, spans=0)
    with pytest.raises(GuidanceError, match=r"schedule has 2 steps for 3 spans; make it with make_schedule\(name, 3\)"):
        write_guided(model, OPENINGS, pulls=[good], spans=3)
    with pytest.raises(GuidanceError, match="1 steps for 2 spans"):
        write_guided(model, OPENINGS, pulls=[good], spans=2, guidance_scale=torch.tensor([1.5]))
    for weight in (0.5, 1.0):
        for wrong in (torch.ones(5), torch.ones(2, model.latent_config.z_dim)):
            with pytest.raises(GuidanceError, match="does not fit"):
                write_guided(model, OPENINGS, pulls=[Pull(wrong, torch.full((2,), weight))], spans=2)
    with pytest.raises(TextError, match="lone surrogate"):
        write_guided(model, ["\ud800"], spans=1)
    with pytest.raises(TextError, match="got 1 contexts and 2 seeds"):
        write_guided(model, ["The"], spans=1, seeds=[1, 2])
    with pytest.raises(TextError, match="list"):
        write_guided(model, "The", spans=1)


def test_writing_ends_when_every_story_has(tiny_llama: Path) -> None:
    model = tiny_model(tiny_llama)
    head = model.peft.get_base_model().get_output_embeddings()
    head.weight.data[256] = 0
    head.weight.data[:256] = -head.weight.data[:256].abs()
    model.invalidate()
    sure = SamplingConfig(temperature=0)
    hidden_sign = write_guided(model, OPENINGS, spans=5, seeds=0, sampling=sure)
    for row in hidden_sign:
        if row.ended:
            assert row.ids[-1] == 256
            assert row.ids.count(256) == 1
            assert model.to_text(row.ids) == row.text == "".join(row.spans)
        assert row.latents.shape[1] == Z_DIM
