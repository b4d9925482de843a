"""The visible context: checked, cut, and never empty, alike for everything that writes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer.errors import TextError
from steer.models.latent_model import LatentModel
from steer.models.tokens import text_begin
from steer.search.budget import Budget
from steer.search.searched import write_searched
from steer.writing.context import visible_ids
from steer.writing.sampling import SamplingConfig
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import SPAN, tiny_model, write_guided

GREEDY = SamplingConfig(temperature=0)


@pytest.fixture(scope="module", params=["interleaved", "minihf"])
def model(request: pytest.FixtureRequest, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    if request.param == "interleaved":
        return tiny_model(tiny_llama)
    base, checkpoint = make_minihf_folder(tmp_path_factory.mktemp("minihf"), seed=7)
    return LatentModel.from_minihf(checkpoint, base, span_tokens=SPAN, device="cpu")


class Tokenizer:
    def __init__(self, bos: int | None, eos: int | None) -> None:
        self.bos_token_id, self.eos_token_id = bos, eos


@pytest.mark.parametrize(("bos", "eos", "begin"), [(0, 7, 0), (3, 7, 3), (None, 7, 7), (None, 0, 0)])
def test_a_text_begins_with_its_beginning_or_else_the_end_of_another(
    bos: int | None, eos: int | None, begin: int
) -> None:
    assert text_begin(Tokenizer(bos, eos)) == begin


def test_a_tokenizer_without_either_needs_a_context() -> None:
    with pytest.raises(TextError, match="neither a beginning nor an end token; give a context"):
        text_begin(Tokenizer(None, None))


def test_stories_follow_each_other_in_training_and_so_begin_behind_an_end(model: LatentModel) -> None:
    interleaved = model.latent_config.layout == "interleaved"
    tokenizer = model.tokenizer
    assert model.layout.begin(model.tokenizer) == (tokenizer.eos_token_id if interleaved else text_begin(tokenizer))


def test_an_empty_context_is_the_same_to_guided_and_searched_writing(model: LatentModel) -> None:
    guided = write_guided(model, [""], spans=1, seeds=[1], sampling=GREEDY)[0]
    budget = Budget(nodes=1)
    found = write_searched(
        model, [""], spans=1, seeds=[1], sampling=GREEDY, policy="best_of_n", budget=budget, rewards={"fluency": 1.0}
    )[0]
    assert guided.context == found.context == (model.layout.begin(model.tokenizer),)
    assert guided.ids == found.ids


def test_ids_may_be_of_numpy_and_are_cut_on_the_left(model: LatentModel) -> None:
    limit = model.latent_config.max_context
    ids: Any = np.arange(limit + 5) % 200
    assert visible_ids(model, [ids, "", [1]]) == [ids[5:].tolist(), [model.layout.begin(model.tokenizer)], [1]]


def test_seeds_may_be_of_numpy(model: LatentModel) -> None:
    seeds: list[Any] = [3, np.int64(3)]
    texts = [write_guided(model, ["The fox"], spans=1, seeds=seed)[0].ids for seed in seeds]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("ids", [[99_999], [-1], [1.5], ["a"]])
def test_what_is_no_token_is_refused(model: LatentModel, ids: list[int]) -> None:
    vocabulary = model.latent_config.base.vocab_size
    message = f"context 1 must be text, or token ids from 0 to {vocabulary - 1}; got {ids!r}"
    with pytest.raises(TextError, match=re.escape(message)):
        write_guided(model, [[1], ids], spans=1)
    with pytest.raises(TextError, match=re.escape(message)):
        write_searched(model, [[1], ids], spans=1, budget=Budget(nodes=1), rewards={"fluency": 1.0})


def test_a_call_that_cuts_texts_says_so_once(model: LatentModel, caplog: pytest.LogCaptureFixture) -> None:
    limit = model.latent_config.max_context
    long = "a" * (limit + 30)
    length = len(model.to_ids(long))
    assert visible_ids(model, [long, "b", long])[0] == model.to_ids(long)[-limit:]
    assert [record.getMessage() for record in caplog.records] == [
        f"2 of 3 contexts are cut: the model sees the last {limit} tokens of {length}"
    ]
    caplog.clear()
    visible_ids(model, ["a", model.to_ids(long)])
    assert not caplog.records


@pytest.mark.parametrize("contexts", [None, 3, b"abc", [None], [5, 6], [["a"]], [[1.5]]])
def test_what_is_no_context_is_refused(model: LatentModel, contexts: Any) -> None:
    with pytest.raises(TextError, match="context"):
        visible_ids(model, contexts)
