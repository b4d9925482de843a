"""The reach stage: cuts and distances by hand, what is resumed, and a head that learns what there is to learn."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer.errors import CorpusError, TrainingError
from steer.evaluation.reach import auc, calibration, measure, nearer_and_farther, reach_figures
from steer.heads.reach import ReachHead
from steer.models.latent_model import LatentModel
from steer.training.heads import reach as reach_stage
from steer.training.heads.reach import encode_stories, fit_reach, fit_temperature, train_reach
from steer.training.heads.reach_data import Passages, cut_story, encode_passages, find_rivals, join_passages
from steer.training.heads.reach_pairs import EARLIER, OTHER, PairSampler, bucket_of, other_pairs, story_pairs
from steer.training.recipe import ReachRecipe
from tests.steer.tiny import SPAN, tiny_model

RECIPE = ReachRecipe(stories=40, steps=8, batch_size=32, width=8)
STORIES = [
    f"The {'fox dog cat hen'.split()[i % 4]} Tom{'abcdefg'[i % 7]} ran. It sat {i}. A cow sang! Was it so? It was."
    for i in range(60)
]


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model(tiny_llama).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentModel:
    return LatentModel.from_pretrained(folder)


def passages_of(
    story: list[int], begin: list[int], end: list[int], span: list[bool], latents: torch.Tensor | None = None
) -> Passages:
    return Passages(
        torch.zeros(len(story), 2) if latents is None else latents,
        np.array(story),
        np.array(begin),
        np.array(end),
        np.array(span),
        np.full((max(story) + 1, 8), -1),
        10,
    )


def walks(stories: int, seed: int = 0) -> Passages:
    """Stories whose latents say who is in them (four numbers) and how far they have come (the fifth)."""
    rng = np.random.default_rng(seed)
    rows, story = [], []
    for number in range(stories):
        who = rng.normal(size=4) * 2
        for place in range(12):
            rows.append([*(who + 0.1 * rng.normal(size=4)), place / 3])
            story.append(number)
    begin = np.arange(12 * stories) % 12 * 10
    latents = torch.tensor(rows, dtype=torch.float32)
    return passages_of(story, begin.tolist(), (begin + 10).tolist(), [True] * len(story), latents)


# Cutting --------------------------------------------------------------------------------------------------------------


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


def test_a_story_does_not_depend_on_those_before_it(model: LatentModel) -> None:
    together = encode_passages(model, STORIES[:6], seed=1)
    alone = encode_passages(model, STORIES[4:6], seed=1, first=4)
    rows = together["story"] >= 4
    for name in ("story", "begin", "end", "span"):
        assert torch.equal(together[name][rows], alone[name])
    torch.testing.assert_close(together["latents"][rows], alone["latents"], atol=1e-5, rtol=0)


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
    config = RECIPE.config("e", 5)
    drawn = PairSampler(walks(9), config).draw(10_000, np.random.default_rng(0))
    kinds = np.bincount(bucket_of(drawn.distance, config.buckets), minlength=9)
    assert kinds[0] == 0 and len(set(kinds[1:8])) == 1  # there are no sentences inside spans
    assert (drawn.distance == EARLIER).sum() == 500
    assert (drawn.distance == OTHER).sum() == pytest.approx(2500 * 8 / 9, rel=0.05)


def test_stories_of_one_span_teach_nothing(model: LatentModel) -> None:
    with pytest.raises(CorpusError, match="no story has two spans of 8 tokens"):
        story_pairs(join_passages([encode_passages(model, ["Hi. You."] * 3)], find_rivals(["a"] * 3), SPAN))


# Figures --------------------------------------------------------------------------------------------------------------


def test_auc_and_calibration_by_hand() -> None:
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 0.0])) == 1
    assert auc(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.5
    assert auc(np.array([2.0]), np.array([1.0, 3.0, 2.0, 0.0])) == pytest.approx(2.5 / 4)
    found = calibration(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert found["ece"] == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)
    assert found["pairs"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2] and found["came"][0] == 0.5 and found["came"][1] is None


def test_nearer_and_farther_share_their_terminal() -> None:
    near, far = nearer_and_farther(story_pairs(walks(4)), 300, np.random.default_rng(0))
    assert len(near) and (near.terminal == far.terminal).all()
    assert (near.distance >= 1).all() and (near.distance < far.distance).all()


def test_a_temperature_undoes_a_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 4, generator=generator) * 2
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)


def test_a_head_learns_who_and_how_far() -> None:
    recipe = ReachRecipe(steps=400, batch_size=256, width=32, dropout=0.0, noise=0.05)
    head, losses = fit_reach(walks(150), recipe, recipe.config("e", 5))
    assert losses["held_out_loss"] < 1.5 and head.config.tail == pytest.approx(10.4, abs=0.5)
    found = measure(head, walks(40, seed=1))
    assert found["reach"]["auc_other"] > 0.97 and found["reach"]["order"] > 0.97
    assert found["reach"]["auc_earlier"] > 0.97 > found["cosine"]["auc_earlier"]
    assert found["calibration"]["ece"] < 0.1
    assert "auc_rival" not in found["reach"]


# The stage ------------------------------------------------------------------------------------------------------------


def test_a_model_gets_its_head(folder: Path, model: LatentModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    (folder / "README.md").write_text("# My model\n", encoding="utf-8")
    out = train_reach(folder, RECIPE, STORIES[:50], STORIES[50:], tmp_path / "reach", seed=3)
    loaded = LatentModel.from_pretrained(out)
    assert isinstance(loaded.reach, ReachHead) and model.reach is None
    assert loaded.latent_config.encoder_id == model.latent_config.encoder_id == loaded.reach.config.encoder_id
    assert loaded.reach.config.temperature != 1
    done = json.loads((tmp_path / "reach" / "done.json").read_text())
    assert 0 <= done["figures"]["reach"]["auc_other"] <= 1 and done["stories"] == 40
    assert (out / "README.md").read_text(encoding="utf-8").startswith("# My model") and "reach head was trained" in (
        out / "README.md"
    ).read_text(encoding="utf-8")
    assert done["figures"] == reach_figures(loaded, STORIES[50:], seed=3)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    again = (RECIPE, STORIES[:50], STORIES[50:], tmp_path / "reach")
    train_reach(folder, *again, seed=3)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(TrainingError, match="seed was 3, is now 4"):
        train_reach(folder, *again, seed=4)
    with pytest.raises(TrainingError, match="heads was"):
        train_reach(tmp_path / "reach" / "model", *again, seed=3)


def test_an_interrupted_stage_goes_on(
    folder: Path, model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach_stage, "PART", 10)
    inner, calls = reach_stage.encode_passages, []

    def encode(*arguments: Any, **options: Any) -> Any:
        calls.append(options["first"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(*arguments, **options)

    monkeypatch.setattr(reach_stage, "encode_passages", encode)
    for _ in range(2):
        try:
            train_reach(folder, RECIPE, STORIES[:50], STORIES[50:], tmp_path / "one")
        except KeyboardInterrupt:
            continue
    assert calls == [0, 10, 20, 20, 30]
    train_reach(folder, RECIPE, STORIES[:50], STORIES[50:], tmp_path / "two")
    one, two = (LatentModel.from_pretrained(tmp_path / name / "model").reach for name in ("one", "two"))
    assert one is not None and two is not None
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, two.state_dict()[name], msg=name)


def test_another_text_or_seed_needs_another_folder(model: LatentModel, tmp_path: Path) -> None:
    encode_stories(model, STORIES[:20], RECIPE, tmp_path, seed=0)
    with pytest.raises(TrainingError, match="begun with another seed and stories; train into a new folder"):
        encode_stories(model, STORIES[:19], RECIPE, tmp_path, seed=1)


def test_no_stories(folder: Path, model: LatentModel, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no stories to train"):
        train_reach(folder, RECIPE, [], STORIES, tmp_path)
    with pytest.raises(CorpusError, match="no stories to evaluate"):
        reach_figures(model, [])
