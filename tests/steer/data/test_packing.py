"""Stories of one block: nothing of one is seen by another, and each is read as if it stood alone."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from steer.data.packing import BorderedCollator, check_borders, restarting_positions
from steer.errors import UnsupportedBase
from steer.training.base import train_base
from tests.steer.families import EOS, make_base
from tests.steer.tiny import assert_near
from tests.steer.training.test_stages import recipe_of

FAMILIES = ("llama", "mistral_window", "qwen2", "qwen3", "gemma2", "gpt2", "gpt_neox")
STORIES = [[EOS, *b"The fox ran home."], [EOS, *b"A hen."], [EOS, *b"Once a dog saw a bird in the old"]]


def test_positions_start_again_at_borders() -> None:
    ids = torch.tensor([[5, 6, 9, 7, 9, 9, 8], [9, 1, 2, 3, 4, 5, 6]])
    assert restarting_positions(ids, 9).tolist() == [[0, 1, 0, 1, 0, 0, 1], [0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_story_in_a_block_has_the_logits_of_the_story_alone(family: str, tiny_llama: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_base(family, tiny_llama, tmp_path)).eval()
    block = torch.tensor(sum(STORIES, []))
    batch = BorderedCollator(EOS)([{"input_ids": block, "labels": block}] * 2)
    with torch.no_grad():
        packed, joined = model(**batch).logits[0], model(block[None]).logits[0]
        start = 0
        for number, story in enumerate(STORIES):
            alone = model(torch.tensor([story])).logits[0]
            assert_near(packed[start : start + len(story)], alone, atol=5e-4)
            if number:
                assert (joined[start : start + len(story)] - alone).abs().max() > 1e-2
            start += len(story)
    check_borders(model, EOS)


def test_the_last_token_of_a_story_still_learns_that_it_ends(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).train()
    block = torch.tensor(sum(STORIES, []))
    loss = model(**BorderedCollator(EOS)([{"input_ids": block, "labels": block}])).loss
    with torch.no_grad():
        sums, count = torch.tensor(0.0), 0
        for story, after in zip(STORIES, [*STORIES[1:], []], strict=True):
            ids = torch.tensor(story + after[:1])  # the next story's first token is this one's end
            logits = model(ids[None, : len(story)]).logits[0, : len(ids) - 1]
            sums += torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")
            count += len(ids) - 1
    assert count == len(block) - 1
    assert_near(loss, sums / count)


def test_a_family_that_sees_across_borders_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=258, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(UnsupportedBase, match=r"bloom .*; leave out `base.packing`"):
        check_borders(model, EOS)


@pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch|peft)")
def test_a_base_is_trained_on_bordered_blocks(tmp_path: Path) -> None:
    texts = [f"The fox saw {i} birds. It ran home." for i in range(60)]
    (tmp_path / "stories.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    losses = {}
    for packing in ("joined", "bordered"):
        recipe = recipe_of(steps=2)
        assert recipe.base is not None
        recipe = recipe.model_copy(update={"base": recipe.base.model_copy(update={"packing": packing})})
        train_base(recipe, tmp_path / packing, tmp_path)
        losses[packing] = json.loads((tmp_path / packing / "base" / "done.json").read_text())["eval_loss"]
    assert losses["joined"] != losses["bordered"] and all(loss > 0 for loss in losses.values())
