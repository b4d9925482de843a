"""Spans joined are the text, for any tokenizer, and a blank at a context's end is healed."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from steer.models.latent_model import LatentModel
from steer.writing.guided import write_guided
from steer.writing.limits import Limits
from steer.writing.span_texts import blanks_of, span_texts, without_blank
from tests.steer.tiny import tiny_model

TEXTS = (
    "Tom ran home. He saw a fox.",
    "看到一只大狗。她很高兴。",
    "ab東c 🦊👩\u200d🚀 e\u0301 é",
    "สวัสดี ครับ नमस्ते। سلام؟",
    " leading and  double ",
)


def byte_level() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(["Tom ran. He"] * 3, trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet))
    return made


def metaspace() -> Tokenizer:
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    vocab = {
        piece: i for i, piece in enumerate(["<unk>", *bytes_, "\u2581", "\u2581Tom", "\u2581ran", *"abcdefghinorst."])
    }
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


@pytest.mark.parametrize("make", [byte_level, metaspace])
@pytest.mark.parametrize("text", TEXTS)
def test_spans_joined_are_the_text(make: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())
    model: Any = SimpleNamespace(to_text=lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    context = "Once."
    before = tokenizer(context, add_special_tokens=False)["input_ids"]
    whole = str(tokenizer.decode([*before, *ids]))
    assert whole.startswith(context)
    for size, cut in itertools.product((1, 2, 3, 4, 7), (0, 1, 2, 5)):
        known, rest = [*before, *ids[:cut]], ids[cut:]
        spans = [rest[i : i + size] for i in range(0, len(rest), size)]
        found = span_texts(model, known, spans)
        assert "\ufffd" not in "".join(found), (size, cut, found)
        assert str(tokenizer.decode(known)).rstrip("\ufffd") + "".join(found) == whole
        # As they come, one by one, and with what is empty behind the end of a story.
        for count in range(1, len(spans)):
            assert span_texts(model, known, spans[:count], finished=False) == found[:count]
        assert span_texts(model, known, [*spans, []])[: len(spans)] == found


def test_half_a_character_at_the_end_is_shown_once() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level())
    model: Any = SimpleNamespace(to_text=lambda ids: tokenizer.decode(ids))
    ids = tokenizer("a東")["input_ids"][:-1]
    assert span_texts(model, [], [ids[:1], ids[1:]]) == ("a", "\ufffd")
    assert span_texts(model, [], [ids[:1], ids[1:], []]) == ("a", "\ufffd", "")
    assert span_texts(model, [], [ids[:1], ids[1:]], finished=False) == ("a", "")


def test_blanks_at_the_end() -> None:
    assert without_blank("He went to the ") == ("He went to the", " ")
    assert without_blank("a \t ") == ("a", " \t ") and without_blank("Tom:\n") == ("Tom:\n", "")
    assert without_blank("  ") == ("  ", "") and without_blank("") == ("", "")
    assert blanks_of(["a ", "a"]) == [" ", ""] and blanks_of([[1, 2]]) == [""]


def test_a_context_that_ends_in_a_blank_is_healed(tiny_llama: Path) -> None:
    model: LatentModel = tiny_model(tiny_llama)
    how: Any = {"spans": 2, "seeds": [1, 2, 3], "limits": Limits(whole_words=True, plays=True)}
    plain = write_guided(model, ["Tom went to the lake."] * 3, **how)
    blank = write_guided(model, ["Tom went to the lake. "] * 3, **how)
    for one, other in zip(plain, blank, strict=True):
        assert one.ids == other.ids and one.context == other.context
        assert other.text == one.text.removeprefix(" ") and "".join(other.spans) == other.text
    # Without the limit too, what follows a blank does not go on with the word before it.
    how["limits"] = Limits(plays=True)
    mixed = write_guided(model, ["Tom ", "Tom", "Tom "], **how)
    inside = model.continuation_tokens
    assert not inside[mixed[0].ids[0]] and not inside[mixed[2].ids[0]]
    assert mixed[1].ids == write_guided(model, ["Tom"], spans=2, seeds=[2], limits=Limits(plays=True))[0].ids
