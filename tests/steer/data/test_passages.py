"""Stories as the heads learn from them: cuts and distances by hand, and no story depends on those before it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer.data.passage_pairs import EARLIER, OTHER, PairSampler, bucket_of, other_pairs, story_pairs
from steer.data.passages import cut_story, encode_passages, find_rivals, join_passages
from steer.errors import CorpusError
from steer.evaluation.continuations import cut_row, encode_continuations
from steer.models.latent_model import LatentModel
from steer.training.recipe import ReachRecipe
from tests.steer.data.kit import STORIES, passages_of, walks
from tests.steer.tiny import SPAN, Z_DIM, tiny_model


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama)


def test_a_story_is_cut_into_spans_and_whole_sentences() -> None:
    ends = np.zeros(50, bool)
    ends[7] = True
    rng = np.random.default_rng(0)
    ids = np.where(np.arange(200) % 6 == 5, 7, 1)  # sentences of six tokens
    for length, most in ((200, 30), (200, 4), (47, 30), (20, 30)):
        passages = cut_story(ids[:length], ends, 10, rng, spans=most)
        spans = [(a, b) for a, b, whole in passages if whole]
        assert len(spans) == min(most, (length - spans[0][0]) // 10) >= 2
        assert all(b - a == 10 for a, b in spans)
        assert all(one[1] == two[0] for one, two in zip(spans, spans[1:], strict=False))
        for a, b, whole in passages:
            assert 0 <= a < b <= length
            assert whole or (a % 6 == 0 and b % 6 == 0 and b - a <= 8)
    assert cut_story(ids[:19], ends, 10, rng) == []


def test_a_story_is_cut_into_a_context_and_whole_spans() -> None:
    rng, ids = np.random.default_rng(0), np.arange(100)
    rows = [cut_row(ids, 10, rng, spans=4, longest=40, begin=500) for _ in range(300)]
    lengths = set()
    for row in rows:
        assert row is not None and row.spans.shape[1] == 10 and 1 <= len(row.spans) <= 4
        first = int(row.spans[0, 0])
        assert np.array_equal(row.spans.reshape(-1), np.arange(first, first + row.spans.size))
        assert len(row.spans) == min(4, (100 - first) // 10) and len(row.null) == len(row.spans)
        if first == 0:
            assert row.context.tolist() == [500]
        else:
            assert len(row.context) <= 40 and np.array_equal(row.context, np.arange(first - len(row.context), first))
            lengths.add(len(row.context))
    assert min(lengths) < 5 and max(lengths) > 35
    assert 0.15 < np.mean([null for row in rows if row for null in row.null]) < 0.35
    assert cut_row(ids[:19], 10, rng, spans=4, longest=40, begin=500) is None


@pytest.mark.parametrize(
    ("encode", "exact"),
    [(encode_passages, ("story", "begin", "end", "span")), (encode_continuations, ("story",))],
)
def test_a_story_does_not_depend_on_those_before_it(model: LatentModel, encode: Any, exact: tuple[str, ...]) -> None:
    together = encode(model, STORIES[:6], seed=1)
    alone = encode(model, STORIES[4:6], seed=1, first=4)
    rows = together["story"] >= 4
    for name in together:
        if name in exact:
            assert torch.equal(together[name][rows], alone[name])
        else:
            atol = 1e-5 if encode is encode_passages else 1e-4
            torch.testing.assert_close(together[name][rows], alone[name], atol=atol, rtol=0)


def test_short_stories_give_nothing(model: LatentModel) -> None:
    found = encode_continuations(model, ["Hi. You."] * 3)
    assert found["states"].shape == (0, 32 + Z_DIM) and found["latents"].shape == (0, Z_DIM) and not len(found["story"])


def test_sentences_are_encoded_as_goals_are(model: LatentModel) -> None:
    story = "One fox ran off. I am. A b. I go. So be. I do. All is well."
    found = encode_passages(model, [story])
    ids = model.to_ids(story)
    sentences = torch.nonzero(~found["span"]).squeeze(1).tolist()
    assert sentences
    for row in sentences:
        text = model.to_text(ids[int(found["begin"][row]) : int(found["end"][row])]).strip()
        torch.testing.assert_close(found["latents"][row], model.encode(text, long="truncate")[0], atol=1e-5, rtol=0)


def test_rivals_share_a_name() -> None:
    rivals = find_rivals(["We saw Tim go.", "Then Tim sat.", "Then Ann sat.", "no names", "and Ann and Tim"])
    assert set(rivals[0]) <= {-1, 1, 4} and set(rivals[2]) <= {-1, 4}
    assert (rivals[3] == -1).all() and (rivals[0] >= 0).any()


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_distances_by_hand() -> None:
    # Two spans (0-10, 10-20), a third (20-30), and sentences: inside the first, across, in the second, far.
    passages = passages_of(
        [0] * 7, [0, 10, 20, 2, 8, 11, 31], [10, 20, 30, 8, 12, 20, 45], [True, True, True, False, False, False, False]
    )
    pairs = story_pairs(passages)
    found = {(s, t): d for s, t, d in zip(pairs.state, pairs.terminal, pairs.distance, strict=True)}
    assert found == {
        **{(0, 1): 1, (0, 2): 2, (0, 3): 0, (0, 5): 1, (0, 6): 4},
        **{(1, 0): EARLIER, (1, 2): 1, (1, 3): EARLIER, (1, 5): 0, (1, 6): 3},
        **{(2, 0): EARLIER, (2, 1): EARLIER, (2, 3): EARLIER, (2, 4): EARLIER, (2, 5): EARLIER, (2, 6): 2},
    }


def test_stories_do_not_mix_and_others_do() -> None:
    passages = walks(5)
    inside = story_pairs(passages)
    assert (passages.story[inside.state] == passages.story[inside.terminal]).all()
    rng = np.random.default_rng(0)
    other = other_pairs(passages, 500, rng, rivals=False)
    assert (passages.story[other.state] != passages.story[other.terminal]).all() and set(other.distance) == {OTHER}
    assert len(other_pairs(passages, 500, rng, rivals=True)) == 0
    passages.rivals[:, 3] = (np.arange(5) + 1) % 5
    rival = other_pairs(passages, 500, rng, rivals=True)
    assert len(rival) and ((passages.story[rival.state] + 1) % 5 == passages.story[rival.terminal]).all()


def test_the_mix_is_that_of_the_configuration() -> None:
    config = ReachRecipe(width=8).config("e", 5)
    drawn = PairSampler(walks(9), config).draw(10_000, np.random.default_rng(0))
    kinds = np.bincount(bucket_of(drawn.distance, config.buckets), minlength=9)
    assert kinds[0] == 0 and len(set(kinds[1:8])) == 1  # there are no sentences inside spans
    assert (drawn.distance == EARLIER).sum() == 500
    assert (drawn.distance == OTHER).sum() == pytest.approx(2500 * 8 / 9, rel=0.05)


def test_stories_of_one_span_teach_nothing(model: LatentModel) -> None:
    with pytest.raises(CorpusError, match="no story has two spans of 8 tokens"):
        story_pairs(join_passages([encode_passages(model, ["Hi. You."] * 3)], find_rivals(["a"] * 3), SPAN))
