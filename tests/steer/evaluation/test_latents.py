"""The figures of latent quality on tiny models: what is decoded, from what, and compared with what."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from steer.data.pairs import Pair
from steer.errors import CorpusError
from steer.evaluation.averages import average_figures
from steer.evaluation.bleu import corpus_bleu
from steer.evaluation.bound import bound_figures
from steer.evaluation.contexts import context_figures
from steer.evaluation.decoding import cut_spans, decode, decode_stage_one, draw_spans, encoder_embed, nlls
from steer.evaluation.latents import quality_figures
from steer.evaluation.paths import path_figures
from steer.evaluation.reconstruction import reconstruction_figures
from steer.latents.mixing import task_vector
from steer.models.latent_model import LatentModel
from tests.steer.minihf_oracle import MiniHFOracle, make_minihf_folder
from tests.steer.tiny import forced_logits, sharpen, tiny_model

WORDS = ("apple", "boat", "cave", "door", "egg", "flower", "grass", "hill", "island", "jug", "kite", "lamp", "moon")
STORIES = [
    f"{WORDS[i % 13]} {WORDS[i % 11]} and Tom the fox. "
    + " ".join(f"It ran to the {WORDS[(i + 5 * k) % 13]}, and Ann sat by it." for k in range(1 + i % 6))
    for i in range(24)
]
PAIRS = [Pair(str(i), f"Once there was Sam{'abcdef'[i]}. He saw Lea", f"A hen {i} sang.") for i in range(6)]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return sharpen(tiny_model(tiny_llama, span_tokens=16))


def letters(texts: Sequence[str]) -> Tensor:
    """A reader that counts letters."""
    rows = [[float(text.count(letter)) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def spans_of(model: LatentModel, count: int = 5) -> list[tuple[int, ...]]:
    return draw_spans(cut_spans(model, STORIES), count, np.random.default_rng(0))


def test_stories_are_cut_into_whole_spans(model: LatentModel) -> None:
    cut = cut_spans(model, [STORIES[0], "Short."], most=3)
    assert cut[1] == [] and len(cut[0]) == 3
    assert [i for span in cut[0] for i in span] == model.to_ids(STORIES[0])[:48]
    drawn = draw_spans(cut, 9, np.random.default_rng(0))
    assert len(drawn) == 1 and drawn[0] in cut[0]


def test_each_token_is_the_likeliest_behind_those_before_it(model: LatentModel) -> None:
    z = model.encode_ids(spans_of(model, 3))
    context = model.to_ids("The dog")
    for contexts, visible in ((None, []), ([context] * 3, context)):
        for row, ids in enumerate(decode(model, z, contexts)):
            logits = forced_logits(model, "router", visible, [(z[row], ids)])[0]
            assert logits.argmax(-1).tolist() == list(ids)


def test_many_rows_are_decoded_as_each_alone(model: LatentModel) -> None:
    z = torch.randn(35, model.latent_config.z_dim, generator=torch.Generator().manual_seed(0))
    seen: list[tuple[str, int, int]] = []
    together = decode(model, z, progress=lambda *told: seen.append(told))
    assert together[33] == decode(model, z[33:34])[0]
    assert seen == [("decoding", 32, 35), ("decoding", 35, 35)]


def test_the_first_stage_decodes_as_minihf_trains_it(tmp_path: Path) -> None:
    base, folder = make_minihf_folder(tmp_path, 7)
    model = LatentModel.from_minihf(folder, base=base, span_tokens=12, dtype=torch.float32)
    z = torch.randn(3, model.latent_config.z_dim, generator=torch.Generator().manual_seed(1))
    dropped = torch.zeros(3, 12, dtype=torch.long)
    wanted = MiniHFOracle.load(base, folder).greedy("decoder", dropped, z, n=12, context_mask=dropped)[:, 12:].tolist()
    eos = model.tokenizer.eos_token_id
    cut = [tuple(row[: row.index(eos) + 1] if eos in row else row) for row in wanted]
    assert decode_stage_one(model, z) == cut
    alone = MiniHFOracle.load(base, folder).greedy("router", dropped[:, :0], z, n=12).tolist()
    assert decode(model, z) == [tuple(row[: row.index(eos) + 1] if eos in row else row) for row in alone]
    figures = reconstruction_figures(model, [tuple(range(5, 17)), tuple(range(20, 32))], letters)
    assert figures.keys() == {"spans", "router", "decoder"}


def test_reconstruction_compares_with_the_originals(model: LatentModel) -> None:
    spans = spans_of(model)
    texts = [model.to_text(ids) for ids in decode(model, model.encode_ids(spans))]
    originals = [model.to_text(ids) for ids in spans]
    found = reconstruction_figures(model, spans, letters)
    assert found["spans"] == 5 and "decoder" not in found
    assert found["router"]["bleu"] == corpus_bleu(texts, originals)
    cosines = letters(texts) @ letters(originals).T
    assert found["router"]["similarity"] == pytest.approx(float(cosines.diagonal().mean()))
    assert found["router"]["nearest"][0] == np.mean(cosines.argmax(1).numpy() == np.arange(5))


def test_bounds_are_of_the_routers_likelihood(model: LatentModel) -> None:
    spans = spans_of(model, 2)
    one = bound_figures(model, spans, samples=1)
    mean = model.encode_ids(spans)
    z = mean + torch.randn(1, *mean.shape, generator=torch.Generator().manual_seed(0))[0]
    alone = [forced_logits(model, "router", [], [(z[i], spans[i])])[0].log_softmax(-1) for i in range(2)]
    likely = [float(alone[i][range(16), list(spans[i])].sum()) for i in range(2)]
    assert one["noisy_nll"] == pytest.approx(-sum(likely) / 32, abs=1e-4)
    assert one["elbo"] == pytest.approx(one["importance"])
    many = bound_figures(model, spans, samples=200)
    assert many["importance"] < many["elbo"]
    assert many["elbo"] == pytest.approx(many["noisy_nll"] + many["kl"], rel=0.02)
    assert many["kl"] == pytest.approx(float(0.5 * mean.pow(2).sum(1).mean()) / 16)
    assert many["base_nll"] == pytest.approx(float(nlls(model, [(), ()], spans).mean()))


def test_paths_lead_from_each_sentence_to_the_next(model: LatentModel) -> None:
    sentences = [pair.terminal for pair in PAIRS]
    found = path_figures(model, sentences, letters)
    assert found["paths"] == 6 and len(found["to_a"]) == len(found["t"]) == 5
    # Every sentence is the beginning of one path and the end of another.
    assert found["to_a"][0] == pytest.approx(found["to_b"][-1])
    assert found["base_nll"][0] == pytest.approx(found["base_nll"][-1])
    texts = [model.to_text(ids) for ids in decode(model, model.encode(sentences))]
    assert found["to_a"][0] == pytest.approx(float((letters(texts) * letters(sentences)).sum(1).mean()))
    # Between two equal sentences there is nowhere to go.
    same = path_figures(model, ["A hen sang."] * 2, letters)
    assert same["distinct"] == 1 and same["rises"][0] == same["as_fluent"][0] == 1 and same["spearman"] == 0


def test_averages_are_decoded_and_told_apart(model: LatentModel) -> None:
    cut = cut_spans(model, STORIES)
    found = average_figures(model, cut, letters, count=8)
    assert found is not None and found["stories"] == 8
    assert found["sizes"].keys() == {"1", "2", "4", "8"}
    assert found["sizes"]["1"].keys() == {"one_story"} and found["sizes"]["8"].keys() == {"one_story", "mixed"}
    assert found == average_figures(model, cut, letters, count=8)
    # Stories of three spans have two to average and one that is the rest of them.
    short = average_figures(model, [story[:3] for story in cut], letters, count=8)
    assert short is not None and short["sizes"].keys() == {"1", "2"}
    assert average_figures(model, [story[:2] for story in cut], letters, count=8) is None


def test_a_story_of_one_repeated_span_is_its_own_average(model: LatentModel) -> None:
    cut = [[span] * 6 for span in spans_of(model, 6)]
    z = model.encode_ids([story[0] for story in cut])
    torch.testing.assert_close(task_vector(z[:1].expand(4, -1)), z[0])
    found = average_figures(model, cut, letters, count=6)
    assert found is not None and found["sizes"].keys() == {"1", "2", "4"}
    texts = [model.to_text(ids) for ids in decode(model, z)]
    originals = [model.to_text(story[0]) for story in cut]
    wanted = float(((letters(texts) @ letters(originals).T).argmax(1) == torch.arange(6)).float().mean())
    for size in found["sizes"].values():
        assert size["one_story"]["own"][0] == size["one_story"]["rest"][0] == pytest.approx(wanted)


def test_one_latent_is_written_behind_the_next_two_contexts(model: LatentModel) -> None:
    found = context_figures(model, PAIRS, letters)
    contexts = [[model.to_ids(PAIRS[(i + step) % 6].context) for i in range(6)] for step in (1, 2)]
    rows = [decode(model, model.encode([pair.terminal for pair in PAIRS]), side) for side in contexts]
    own = [nlls(model, contexts[side], rows[side]) for side in (0, 1)]
    swapped = [nlls(model, contexts[1 - side], rows[side]) for side in (0, 1)]
    assert found["base_nll"] == pytest.approx(np.mean(own)) and found["swapped_nll"] == pytest.approx(np.mean(swapped))
    assert found["fits"][0] == np.mean(np.array(own) < np.array(swapped))
    assert found["differ"][0] == np.mean([a != b for a, b in zip(*rows, strict=True)])
    assert found["other_named"] is not None and found["other_named"][0] == 0  # it does not write in words


def test_all_figures_at_once(model: LatentModel) -> None:
    found = quality_figures(model, STORIES, PAIRS, letters)
    parts = {"reconstruction", "bound", "paths", "averages", "contexts"}
    assert found.keys() == {"similarity", *parts} and found["similarity"] == "given"
    assert quality_figures(model, STORIES, PAIRS[:2]).keys() == {"similarity", *parts - {"contexts"}}
    with pytest.raises(CorpusError, match="none of 2 stories is as long as a span of 16 tokens"):
        quality_figures(model, ["One.", "Two."], PAIRS)


def test_the_encoder_reads_whatever_was_written(model: LatentModel) -> None:
    found = encoder_embed(model)(["", "\0", "A hen sang. " * 20])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
