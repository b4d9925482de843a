"""Writers: cached logits against full passes, drafts, batches, seeds, ends, and guidance arms."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.errors import GuidanceError, LatentError, TextError
from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.writing.classifier_free import classifier_free_guidance
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from steer.writing.span_loop import Draw
from steer.writing.writer import Writer, open_writer
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import SPAN, Z_DIM, assert_near, forced_logits, sharpen, tiny_model

GREEDY = SamplingConfig(temperature=0)
EOS = 256
CONTEXTS = [[3, 1, 4, 1, 5, 9, 2], [65], [200, 100, 50]]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return sharpen(tiny_model(tiny_llama))


@pytest.fixture(scope="module")
def minihf(tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    base, checkpoint = make_minihf_folder(tmp_path_factory.mktemp("minihf"), seed=7)
    return LatentModel.from_minihf(checkpoint, base, span_tokens=SPAN, device="cpu")


def latents(rows: int, steps: int, width: int = Z_DIM, seed: int = 0) -> Tensor:
    return torch.randn(steps, rows, width, generator=torch.Generator().manual_seed(seed))


def spy(writer: Writer) -> list[Tensor]:
    """Record the logits from which each token is drawn."""
    seen: list[Tensor] = []
    inner = writer._sampler

    def recording(seeds: Sequence[int]) -> Draw:
        draw = inner(seeds)

        def record(logits: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
            seen.append(logits.clone())
            return draw(logits, tokens)

        return record

    writer._sampler = recording  # type: ignore[method-assign]
    return seen


def generate(writer: Writer, z: Tensor | None, scale: float | Tensor | None) -> list[list[int]]:
    return [list(span.ids) for span in writer.write(z, guidance_scale=scale)]


def write_all(writer: Writer, zs: Sequence[Tensor | None], scale: float | None = None) -> list[list[int]]:
    for z in zs:
        writer.write(z, guidance_scale=scale)
    return [writer.ids(row) for row in range(writer.rows)]


# The interleaved layout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [True, False])
def test_cached_logits_are_those_of_a_full_pass(model: LatentModel, fuse: bool) -> None:
    model.fuse = fuse
    try:
        writer = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=4)
        seen, tokens = spy(writer), []
        zs: list[Tensor | None] = [*latents(3, 2), None, latents(3, 1, seed=5)[0]]
        for z in zs:
            seen_before = len(seen)
            writer.draft()
            del seen[seen_before:]
            tokens.append(generate(writer, z, None))
    finally:
        model.fuse = True
    got = torch.stack(seen, dim=1).unflatten(1, (4, SPAN))
    for row, context in enumerate(CONTEXTS):
        parts = [(None if z is None else z[row], ids[row]) for z, ids in zip(zs, tokens, strict=True)]
        for step, wanted in enumerate(forced_logits(model, ROUTER, context, parts)):
            assert_near(got[row, step], wanted)


def test_guided_logits_mix_two_separate_passes(model: LatentModel) -> None:
    writer = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=3, with_null=True)
    seen, tokens, zs = spy(writer), [], list(latents(3, 3))
    scales: list[float | Tensor | None] = [1.7, torch.tensor([0.0, 1.0, 2.5]), None]
    for z, scale in zip(zs, scales, strict=True):
        tokens.append(generate(writer, z, scale))
    got = torch.stack(seen, dim=1).unflatten(1, (3, SPAN))
    for row, context in enumerate(CONTEXTS):
        ids = [step[row] for step in tokens]
        own = forced_logits(model, ROUTER, context, [(z[row], x) for z, x in zip(zs, ids, strict=True)])
        null = forced_logits(model, ROUTER, context, [(None, x) for x in ids])
        for step, scale in enumerate((1.7, (0.0, 1.0, 2.5)[row], 1.0)):
            assert_near(got[row, step], null[step] + scale * (own[step] - null[step]), atol=3e-4)


def test_scale_one_and_none_write_the_same_as_a_writer_without_null_arm(model: LatentModel) -> None:
    zs = list(latents(3, 3))
    plain = write_all(open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=3), zs)
    for scale in (None, 1.0):
        writer = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=3, with_null=True)
        assert write_all(writer, zs, scale) == plain


@pytest.mark.parametrize("with_null", [False, True])
def test_drafts_leave_no_trace(model: LatentModel, with_null: bool) -> None:
    zs = list(latents(3, 3))
    scale = 1.5 if with_null else None
    options = {"seeds": [1, 2, 3], "spans": 3, "with_null": with_null}
    plain = open_writer(model, CONTEXTS, **options)
    wanted = write_all(plain, zs, scale)
    drafting = open_writer(model, CONTEXTS, **options)
    for z in zs:
        first, second = drafting.draft(), drafting.draft()
        assert torch.equal(first, second)
        assert first.shape == (3, Z_DIM)
        drafting.write(z, guidance_scale=scale)
    assert [drafting.ids(row) for row in range(3)] == wanted


def test_a_draft_is_the_latent_of_a_span_written_from_the_null_latent(model: LatentModel) -> None:
    writer = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=3, sampling=GREEDY)
    writer.write(latents(3, 1)[0])
    draft = writer.draft()
    spans = writer.write(None)
    assert_near(draft, model.encode_ids([list(span.ids) for span in spans]), atol=1e-5)


@pytest.mark.parametrize("sampling", [GREEDY, SamplingConfig(temperature=0.9)])
@pytest.mark.parametrize("scale", [None, 1.5])
def test_a_row_writes_the_same_alone_as_in_any_batch(
    model: LatentModel, sampling: SamplingConfig, scale: float | None
) -> None:
    zs = latents(3, 2)
    options = {"spans": 2, "sampling": sampling, "with_null": scale is not None}
    together = open_writer(model, CONTEXTS, seeds=[11, 12, 13], **options)
    wanted = write_all(together, list(zs), scale)
    drafts = together.draft()
    for row in range(3):
        alone = open_writer(model, [CONTEXTS[row]], seeds=[11 + row], **options)
        assert write_all(alone, list(zs[:, row : row + 1]), scale) == [wanted[row]]
        assert_near(alone.draft()[0], drafts[row], atol=1e-4)
    turned = open_writer(model, CONTEXTS[::-1], seeds=[13, 12, 11], **options)
    assert write_all(turned, list(zs.flip(1)), scale) == wanted[::-1]


def test_same_seed_same_text_and_another_seed_another_text(model: LatentModel) -> None:
    zs = list(latents(3, 2))
    first, again, other = (
        write_all(open_writer(model, CONTEXTS, seeds=seeds, spans=2), zs) for seeds in ([1, 2, 3], [1, 2, 3], [1, 2, 4])
    )
    assert first == again
    assert first[:2] == other[:2]
    assert first[2] != other[2]
    same = write_all(open_writer(model, [[7, 8]] * 2, seeds=[5, 6], spans=2), list(latents(1, 2).expand(2, 2, -1)))
    assert same[0] != same[1]


def test_different_spans_and_drafts_use_different_noise(model: LatentModel) -> None:
    flat = SamplingConfig(temperature=1e4)  # all tokens equally likely: what is drawn is the noise
    writer = open_writer(model, [[7, 8]], seeds=[5], spans=3, sampling=flat)
    draft = writer.draft()
    first, second = (writer.write(None)[0].ids for _ in range(2))
    assert first != second
    assert (draft[0] - model.encode_ids([list(first)])[0]).abs().max() > 1e-3


def test_a_latent_changes_what_is_written(model: LatentModel) -> None:
    zs = latents(1, 1) * torch.tensor([1.0, -3.0, 8.0])[:, None, None]
    texts = [write_all(open_writer(model, [[7]], seeds=[5], spans=1, sampling=GREEDY), [z])[0] for z in [*zs, None]]
    assert len({tuple(text) for text in texts}) > 1


# Ends -----------------------------------------------------------------------------------------------------------------


class Scripted:
    """Draws the tokens of a script instead of those that the logits favour."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows, self.at = rows, 0

    def __call__(self, logits: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, None]:
        self.at += 1
        return torch.tensor([row[self.at - 1] for row in self.rows]), None


def test_a_row_stops_after_its_end_token_and_its_neighbour_goes_on(model: LatentModel) -> None:
    writer = open_writer(model, CONTEXTS[:2], seeds=[1, 2], spans=3)
    scripts = [[1, 2, EOS, *range(3, 24)], list(range(24))]
    script = Scripted(scripts)
    writer._sampler = lambda seeds: script  # type: ignore[method-assign]
    spans = [writer.write(None) for _ in range(3)]
    assert (spans[0][0].ids, spans[0][0].ended) == ((1, 2, EOS), True)
    assert [(span[0].ids, span[0].ended) for span in spans[1:]] == [((), True)] * 2
    assert [span[1].ids for span in spans] == [tuple(range(i, i + 8)) for i in (0, 8, 16)]
    assert writer.ended == [True, False]
    assert writer.ids(0) == [1, 2, EOS]
    assert writer.ids(1) == list(range(24))


def test_an_end_token_may_come_first_or_last_in_a_span(model: LatentModel) -> None:
    writer = open_writer(model, CONTEXTS[:2], seeds=[1, 2], spans=2)
    script = Scripted([[EOS, *range(15)], [*range(7), EOS, *range(8)]])
    writer._sampler = lambda seeds: script  # type: ignore[method-assign]
    spans = writer.write(None)
    assert [span.ids for span in spans] == [(EOS,), (*range(7), EOS)]
    assert writer.ended == [True, True]
    assert [span.ids for span in writer.write(None)] == [(), ()]


def test_a_draft_that_ends_is_encoded_up_to_its_end(model: LatentModel) -> None:
    writer = open_writer(model, CONTEXTS[:2], seeds=[1, 2], spans=2)
    script = Scripted([[1, 2, EOS, *range(5)], [EOS] * 8])
    writer._sampler = lambda seeds: script  # type: ignore[method-assign]
    assert_near(writer.draft(), model.encode_ids([[1, 2, EOS], [EOS]]), atol=1e-5)
    assert writer.ended == [False, False]


# Settings and errors --------------------------------------------------------------------------------------------------


def test_a_long_context_is_cut_on_the_left_and_its_record_says_so(model: LatentModel) -> None:
    long = [i % 250 for i in range(100)]
    writer = open_writer(model, [long], seeds=[1], spans=1, sampling=GREEDY)
    assert writer.contexts == [long[-40:]]
    cut = open_writer(model, [long[-40:]], seeds=[1], spans=1, sampling=GREEDY)
    z = latents(1, 1)[0]
    assert writer.write(z) == cut.write(z)


def test_an_empty_context_begins_a_story(model: LatentModel) -> None:
    z = latents(2, 1)[0]
    writer = open_writer(model, [[], [5, 6]], seeds=[1, 2], spans=1, sampling=GREEDY)
    begun = open_writer(model, [[EOS], [5, 6]], seeds=[1, 2], spans=1, sampling=GREEDY)
    assert writer.contexts == begun.contexts == [[EOS], [5, 6]]
    assert writer.write(z) == begun.write(z)


def test_tokens_already_written_are_penalised_within_the_span_too(model: LatentModel) -> None:
    strong = SamplingConfig(temperature=0, repetition_penalty=1e6)
    for count in (1, 3):
        writer = open_writer(model, CONTEXTS[:count], seeds=[1, 2, 3][:count], spans=2, sampling=strong)
        for row, ids in enumerate(write_all(writer, [None, None])):
            visible = [*CONTEXTS[row], *ids]
            assert len(set(visible)) == len(set(CONTEXTS[row])) + len(ids), "a token was repeated"


def test_repetition_penalty_does_not_depend_on_the_batch(model: LatentModel) -> None:
    sampling = SamplingConfig(temperature=0.9, repetition_penalty=1.5)
    contexts = [[], *CONTEXTS]
    zs = latents(4, 2)
    together = write_all(open_writer(model, contexts, seeds=[1, 2, 3, 4], spans=2, sampling=sampling), list(zs))
    for row, context in enumerate(contexts):
        alone = open_writer(model, [context], seeds=[row + 1], spans=2, sampling=sampling)
        assert write_all(alone, list(zs[:, row : row + 1])) == [together[row]]


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(2, Z_DIM), r"expected latents \[3, 6\], got \[2, 6\]"),
        (torch.zeros(3, 5), r"expected latents \[3, 6\], got \[3, 5\]"),
        (torch.zeros(Z_DIM), r"expected latents \[3, 6\], got \[6\]"),
        (torch.full((3, Z_DIM), float("nan")), "NaN or infinity"),
        (torch.full((3, Z_DIM), float("inf")), "NaN or infinity"),
    ],
)
def test_latents_that_do_not_fit_are_refused_before_anything_is_written(
    model: LatentModel, z: Tensor, message: str
) -> None:
    writer = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=1, sampling=GREEDY)
    with pytest.raises(LatentError, match=message):
        writer.write(z)
    good = latents(3, 1)[0]
    fresh = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=1, sampling=GREEDY)
    assert writer.write(good) == fresh.write(good)


def test_guidance_without_a_null_arm_is_refused(model: LatentModel, minihf: LatentModel) -> None:
    for made, width in ((model, Z_DIM), (minihf, 16)):
        writer = open_writer(made, [[65, 66]], seeds=[1], spans=1)
        with pytest.raises(GuidanceError, match="with_null=True"):
            writer.write(torch.zeros(1, width), guidance_scale=1.5)
        assert writer.written == [[]]


def test_contexts_and_seeds_must_go_together(model: LatentModel) -> None:
    with pytest.raises(TextError, match="got 2 contexts and 1 seeds"):
        open_writer(model, [[1], [2]], seeds=[1], spans=1)
    with pytest.raises(TextError, match="got 0 contexts"):
        open_writer(model, [], seeds=[], spans=1)


def test_more_spans_than_there_is_memory_for_is_an_error(model: LatentModel) -> None:
    writer = open_writer(model, [[1]], seeds=[1], spans=1)
    with pytest.raises(ValueError, match="make it larger"):
        write_all(writer, [None, None, None])


# MiniHF's layout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, 1.5])
@pytest.mark.parametrize("fuse", [True, False])
def test_minihf_spans_equal_a_prefill_from_scratch_for_every_span(
    minihf: LatentModel, scale: float | None, fuse: bool
) -> None:
    contexts = [[70, 71, 72, 73, 74], [100], [90, 91]]
    minihf.fuse = fuse
    try:
        options = {"with_null": scale is not None, "limits": Limits(may_end=False)}
        writer = open_writer(minihf, contexts, seeds=[1, 2, 3], spans=4, **options)
        seen, tokens = spy(writer), []
        zs: list[Tensor | None] = [*latents(3, 2, 16), None, latents(3, 1, 16, seed=9)[0]]
        for z in zs:
            before = len(seen)
            writer.draft()
            del seen[before:]
            tokens.append(generate(writer, z, scale))
    finally:
        minihf.fuse = True
    got = torch.stack(seen, dim=1).unflatten(1, (4, SPAN))
    for row, context in enumerate(contexts):
        visible = list(context)
        for step, z in enumerate(zs):
            ids = tokens[step][row]
            wanted = forced_logits(minihf, None, visible, [(None, ids)])[0]
            if z is not None:
                own = forced_logits(minihf, ROUTER, visible, [(z[row], ids)])[0]
                wanted = own if scale is None else classifier_free_guidance(wanted, own, scale)
            assert_near(got[row, step], wanted)
            visible += ids


@pytest.mark.parametrize("scale", [None, 1.5])
def test_minihf_rows_stand_alone_and_drafts_leave_no_trace(minihf: LatentModel, scale: float | None) -> None:
    contexts = [[70, 71, 72, 73, 74], [100], [90, 91]]
    zs = latents(3, 3, 16)
    options = {"spans": 3, "with_null": scale is not None}
    together = write_all(open_writer(minihf, contexts, seeds=[1, 2, 3], **options), list(zs), scale)
    for row in range(3):
        alone = open_writer(minihf, [contexts[row]], seeds=[row + 1], **options)
        for z in zs[:, row : row + 1]:
            alone.draft()
            alone.write(z, guidance_scale=scale)
        assert alone.ids(0) == together[row]


def test_a_minihf_draft_is_the_latent_of_what_the_bare_base_writes(minihf: LatentModel) -> None:
    writer = open_writer(minihf, [[70, 71], [72]], seeds=[1, 2], spans=2, sampling=GREEDY)
    writer.write(latents(2, 1, 16)[0])
    draft = writer.draft()
    spans = writer.write(None)
    assert_near(draft, minihf.encode_ids([list(span.ids) for span in spans]), atol=1e-4)
