"""Each reward against a plain reimplementation or by hand, and every one of them row by row."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from steer.errors import CheckpointError, RewardError
from steer.heads.preference import PreferenceConfig, PreferenceHead
from steer.models.likelihood import mean_logprobs
from steer.rewards import REWARDS, Rewards, States
from steer.rewards.latent import PreferenceOptions
from steer.rewards.rubric import TEMPLATE, Question, RubricOptions, answer_ids
from steer.rewards.states import Options
from steer.rewards.text import RepetitionOptions
from tests.steer.rewards.fakes import AnsweringModel, WordTokenizer, make_states, random
from tests.steer.tiny import forced_logits, sharpen, tiny_model

PLAIN = Options()
TOKENS = st.lists(st.integers(0, 2), max_size=12)


def score(name: str, states: States, options: Options = PLAIN) -> Tensor:
    return REWARDS[name].score(states, options)


def test_similarity_by_hand() -> None:
    latents = torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]])
    terminals = torch.tensor([[4.0, 3.0], [0.0, 7.0], [1.0, 0.0]])
    states = make_states(3, 2, latents=latents, terminals=terminals, avoid=None)
    torch.testing.assert_close(score("similarity", states), torch.tensor([0.96, -1.0, 0.0]))


@pytest.mark.parametrize("name", ["similarity", "reach"])
def test_a_terminal_is_needed(name: str) -> None:
    class Model:
        reach = nn.Identity()

    with pytest.raises(RewardError, match=f"{name}' needs terminals"):
        score(name, make_states(terminals=None, model=Model()))


def test_avoid_is_the_largest_cosine() -> None:
    latents, own = random(3, 5, seed=1), random(3, 4, 5, seed=2)
    wanted = [
        max(float(torch.cosine_similarity(z, a, dim=0)) for a in rows) for z, rows in zip(latents, own, strict=True)
    ]
    torch.testing.assert_close(score("avoid", make_states(latents=latents, avoid=own)), torch.tensor(wanted))
    shared = score("avoid", make_states(latents=latents, avoid=own[0]))
    assert torch.equal(shared, score("avoid", make_states(latents=latents, avoid=own[0].expand(3, 4, 5))))
    with pytest.raises(RewardError, match="needs latents to avoid"):
        score("avoid", make_states(avoid=None))


def brute_share(history: list[int], span: list[int], n: int) -> float:
    """Every n-gram that ends in the span, compared with every earlier one."""
    tokens = history + span
    ends = [e for e in range(len(history) + 1, len(tokens) + 1) if e >= n]
    again = [e for e in ends if any(tokens[b - n : b] == tokens[e - n : e] for b in range(n, e))]
    return len(again) / len(ends) if ends else 0.0


@given(TOKENS, TOKENS, TOKENS.filter(bool), st.integers(1, 5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_repetition_is_what_brute_force_counts(
    context: list[int], before: list[int], span: list[int], n: int, with_context: bool
) -> None:
    states = make_states(1, contexts=[context], before=[before], spans=[span])
    got = float(score("repetition", states, RepetitionOptions(n=n, context=with_context)))
    assert got == pytest.approx(brute_share((context if with_context else []) + before, span, n))
    assert 0 <= got <= 1


@pytest.mark.parametrize(
    ("context", "before", "span", "wanted"),
    [
        pytest.param([], [], [7, 7, 7, 7, 7, 7], 2 / 3, id="one token over and over"),
        pytest.param([1, 2, 3, 4], [], [1, 2, 3, 4], 1 / 4, id="copied from the context"),
        pytest.param([], [1, 2, 3, 4], [1, 2, 3, 4], 1 / 4, id="a loop of spans, at first"),
        pytest.param([], [1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4], 1.0, id="a loop of spans, running"),
        pytest.param([], [], [1, 2, 3], 0.0, id="shorter than an n-gram"),
        pytest.param([1], [2], [3, 4, 5, 6], 0.0, id="all new"),
    ],
)
def test_repetition_by_hand(context: list[int], before: list[int], span: list[int], wanted: float) -> None:
    states = make_states(1, contexts=[context], before=[before], spans=[span])
    assert float(score("repetition", states, RepetitionOptions())) == pytest.approx(wanted)


def test_fluency_is_what_the_base_says() -> None:
    assert score("fluency", make_states(3)).tolist() == [-1, -2, -3]
    with pytest.raises(RewardError, match=r"base_logprobs must give \[3\]; got \[2\]"):
        score("fluency", make_states(3, base_logprobs=lambda: torch.zeros(2)))


def test_mean_logprobs_are_those_of_plain_passes(tiny_llama: Path) -> None:
    model = sharpen(tiny_model(tiny_llama))
    prefixes, spans = [[5, 6, 7], [], list(range(40, 60))], [[1, 2], [3, 4, 5, 6], [9]]
    got = mean_logprobs(model, prefixes, spans)
    for prefix, span, value in zip(prefixes, spans, got, strict=True):
        logits = forced_logits(model, None, prefix or [model.tokenizer.eos_token_id], [(None, span)])[0]
        logp = logits.log_softmax(dim=-1)[torch.arange(len(span)), torch.tensor(span)]
        assert float(value) == pytest.approx(float(logp.mean()), abs=1e-4)


# -- the rubric --------------------------------------------------------------------------------------------------------

WORDS = [
    "\u0120yes",
    "Yes",
    "\u0120NO",
    "no",
    "Yesterday",
    "Is",
    "\u0120it",
    "\u0120good?",
    "Any",
    "\u0120frog?",
    "\n",
    ":",
]
YES, NO = ["\u0120yes", "Yes"], ["\u0120NO", "no"]


def odds_by_hand(model: AnsweringModel, row: Sequence[int]) -> float:
    logits, at = model.logits(row).double(), model.tokenizer.tokens.index
    yes, no = (sum(float(logits[at(word)].exp()) for word in words) for words in (YES, NO))
    return float(torch.tensor(yes / no).log())


def test_the_rubric_by_hand() -> None:
    """Weights and signs count; the text is cut on the left, its end token left out, and ids are joined as they are."""
    model = AnsweringModel(WORDS)
    questions = (Question(question="Is it good?", weight=3), Question(question="Any frog?", sign=-1))
    options = RubricOptions(questions=questions, template="{text}\n{question}:")
    states = make_states(
        2,
        model=model,
        contexts=[[2, 3, 4], []],
        before=[[5, 6], []],
        spans=[[7, 8, 9], [10, 11, 1]],
        ended=[False, True],
    )
    got = score("rubric", states, options)
    texts = [[4, 5, 6, 7, 8, 9], [10, 11]]  # the last six tokens
    for text, value in zip(texts, got, strict=True):
        good, frog = ([*text, *model.to_ids(f"\n{question.question}:")] for question in questions)
        assert good in model.read and frog in model.read
        wanted = (3 * odds_by_hand(model, good) - odds_by_hand(model, frog)) / 4
        assert float(value) == pytest.approx(wanted, abs=1e-5)
    assert len(model.read) == 4


def test_answers_are_found_in_every_spelling() -> None:
    tokenizer = WordTokenizer([*WORDS, "\u2581yes", "YES", "yES"])
    assert [tokenizer.tokens[i] for i in answer_ids(tokenizer, ["yes"])] == ["\u0120yes", "Yes", "\u2581yes", "YES"]
    assert [tokenizer.tokens[i] for i in answer_ids(tokenizer, ["no"])] == NO


def test_a_tokenizer_without_an_answer_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(RewardError, match="no token for 'no', in any spelling"):
        answer_ids(WordTokenizer(["Yes", "nobody"]), ["no"])
    with pytest.raises(RewardError, match="no token for 'yes'"):  # bytes spell yes in three tokens
        score("rubric", make_states(model=tiny_model(tiny_llama)), RubricOptions(questions=(Question(question="?"),)))


def test_the_rubric_of_a_real_base(tiny_llama: Path) -> None:
    """The same as one unpadded pass per prompt; bytes can answer with single letters."""
    model = sharpen(tiny_model(tiny_llama))
    options = RubricOptions(
        questions=(Question(question="Is it?"), Question(question="Was it all that long ago?")),
        yes_words=("y",),
        no_words=("n",),
    )
    states = make_states(3, model=model)
    got = score("rubric", states, options)
    ids = [ord(c) for c in "yYnN"]
    ids = [model.to_ids(chr(i))[0] for i in ids]
    for row, value in enumerate(got):
        text = [*states.contexts[row], *states.before[row], *states.spans[row]]
        odds = []
        for item in options.questions:
            prompt = [*text, *model.to_ids(TEMPLATE.removeprefix("{text}").replace("{question}", item.question))]
            last = forced_logits(model, None, prompt, [(None, [0])])[0][-1]
            odds.append(float(last[ids[:2]].logsumexp(0) - last[ids[2:]].logsumexp(0)))
        assert float(value) == pytest.approx(sum(odds) / 2, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"template": "{question}:"}, "must hold {text} once; it holds it 0 times", id="text"),
        pytest.param({"template": "{text} {question}: "}, "must not end with a space", id="space"),
        pytest.param({"no_words": ("Yes",)}, "cannot mean both", id="words"),
    ],
)
def test_templates_and_words_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RubricOptions(questions=(Question(question="Is it good?"),), **options)


# -- learned ones ------------------------------------------------------------------------------------------------------


def test_reach_asks_the_models_head_about_the_spans_that_remain() -> None:
    class Model:
        reach = Within()

    states = make_states(4, model=Model())
    assert states.terminals is not None
    wanted = ((states.latents * states.terminals).sum(1) + torch.tensor(list(states.remaining))).sigmoid()
    torch.testing.assert_close(score("reach", states), wanted)


def test_preference_is_the_score_of_the_saved_head(tmp_path: Path) -> None:
    head = PreferenceHead(PreferenceConfig(encoder_id="mine", z_dim=5, width=8)).eval()
    options, states = PreferenceOptions(path=str(tmp_path / "head.safetensors")), make_states(4)
    with pytest.raises(CheckpointError, match="head.safetensors"):
        score("preference", states, options)
    head.save(options.path)
    assert torch.equal(score("preference", states, options), head.score(states.latents))

    def model(encoder_id: str) -> Any:
        return SimpleNamespace(latent_config=SimpleNamespace(encoder_id=encoder_id))

    Rewards({"preference": {"options": options.model_dump()}}, model("mine"))
    with pytest.raises(CheckpointError, match="encoder 'mine', the model's is 'other'"):
        Rewards({"preference": {"options": options.model_dump()}}, model("other"))


# -- laws of all -------------------------------------------------------------------------------------------------------


class Within(nn.Module):
    """A reach head that is a plain formula."""

    def within(self, state: Tensor, terminal: Tensor, spans: Sequence[int]) -> Tensor:
        return ((state * terminal).sum(1) + torch.tensor(spans)).sigmoid()


@pytest.mark.parametrize("name", ["similarity", "avoid", "reach", "fluency", "repetition", "rubric"])
@pytest.mark.parametrize("own_avoid", [False, True])
def test_a_row_of_a_batch_is_the_row_alone(name: str, own_avoid: bool) -> None:
    model: Any = AnsweringModel(WORDS)
    model.reach = Within()
    options = {
        "rubric": RubricOptions(questions=(Question(question="Is it good?"), Question(question="Any frog?"))),
        "repetition": RepetitionOptions(n=2),
    }.get(name, PLAIN)
    states = make_states(7, model=model, avoid=random(7, 3, 5) if own_avoid else random(3, 5))
    whole = score(name, states, options)
    assert whole.shape == (7,) and whole.dtype == torch.float32
    alone = torch.cat([score(name, states.rows([i]), options) for i in range(7)])
    assert torch.equal(whole, alone)
    order = [4, 0, 6]
    assert torch.equal(score(name, states.rows(order), options), whole[order])
    assert score(name, states.rows([]), options).shape == (0,)


def test_a_row_of_a_real_base_is_the_row_alone(tiny_llama: Path) -> None:
    model = sharpen(tiny_model(tiny_llama))
    options = RubricOptions(questions=(Question(question="Is it?"),), yes_words=("y",), no_words=("n",))
    states = make_states(5, model=model)
    alone = torch.cat([score("rubric", states.rows([i]), options) for i in range(5)])
    torch.testing.assert_close(score("rubric", states, options), alone, atol=1e-4, rtol=0)


def test_passes_are_cut_to_fit_memory(tiny_llama: Path) -> None:
    from steer.models.likelihood import bare_logits

    model = sharpen(tiny_model(tiny_llama))
    rows = [list(range(1, 2 + k)) for k in (3, 9, 1, 5)]
    for limit, passes in ((1, 4), (2 * 10 * 258, 2), (2**26, 1)):
        batches = list(bare_logits(model, rows, max_logits=limit))
        assert len(batches) == passes
        assert sorted(itertools.chain.from_iterable(chosen for chosen, _ in batches)) == [0, 1, 2, 3]
