"""Searched writing from end to end: every policy, its results, their repetition, and arguments that do not fit."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import steer.search
from steer.errors import GuidanceError, LatentError, RewardError, SamplingError, SearchError, TextError, UnsupportedBase
from steer.latents.pull import Pull
from steer.latents.schedules import make_schedule
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.rewards import Rewards, default_rewards
from steer.search.action import Action
from steer.search.budget import Budget
from steer.search.config import guided_menu
from steer.search.fields import Status
from steer.search.policies import POLICIES
from steer.search.searched import SearchResult, write_searched
from steer.search.tree import Tree
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from tests.steer.families import EOS
from tests.steer.search.engine_kit import latent
from tests.steer.search.test_driver import check_whole
from tests.steer.search.tree_kit import below
from tests.steer.tiny import SPAN, Z_DIM, assert_near, write_guided

CONTEXTS = ["Once upon a time", "The fox"]
TERMINALS = torch.stack([latent(1), latent(2)])
ENDLESS = Limits(may_end=False)
NODES = 16  # enough for every policy to write whole texts


def search(model: LatentModel, contexts: Any = CONTEXTS, **options: Any) -> list[SearchResult]:
    settings: dict[str, Any] = {"terminals": TERMINALS, "spans": 3, "budget": Budget(nodes=NODES), "seeds": [5, 6]}
    settings |= {"limits": ENDLESS, "menu": guided_menu(1.5), **options}
    return write_searched(model, contexts, **settings)


def check_result(model: LatentModel, result: SearchResult, spans: int) -> None:
    """What a result says is what its tree says, and the best complete node is what is returned."""
    tree, node = result.tree, result.node
    path, root = tree.path(node), int(tree.root[node])
    assert list(result.ids) == tree.ids(node) and result.text == model.to_text(tree.ids(node))
    assert "".join(result.spans) == result.text and len(result.spans) == len(path)
    assert torch.equal(result.latents, torch.from_numpy(tree.written_from[path]))
    assert result.context == tree.context(node) and result.ended == tree.has(node, Status.ENDED)
    assert result.value == float(tree.value[node])
    assert list(result.components.values()) == tree.components[node].tolist()
    assert tuple(result.components) == tree.names
    complete = [n for n in below(tree, root) if tree.is_complete(n)]
    assert result.finished == bool(complete)
    if result.finished:
        assert node in complete and result.value == max(float(tree.value[n]) for n in complete)
        assert result.ended or len(path) == spans
    else:
        assert not result.ended and len(path) < spans
    assert result.spent.nodes == len(below(tree, root))


# Guided writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paged", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize(
    "sampling", [SamplingConfig(), SamplingConfig(repetition_penalty=1.2)], ids=["plain", "penalty"]
)
def test_a_search_of_one_path_writes_what_guided_writing_writes(
    model: LatentModel, scale: float, paged: bool, sampling: SamplingConfig
) -> None:
    """Both count noise alike and run the same loop, from one seed."""
    how = {"spans": 3, "sampling": sampling, "limits": ENDLESS}
    found = write_searched(
        model,
        CONTEXTS,
        terminals=TERMINALS,
        policy="best_of_n",
        policy_options={"n": 1},
        budget=Budget(nodes=3),
        menu=[Action(1.0, scale)],
        seeds=[5, 6],
        paged=paged,
        **how,
    )
    pull = Pull(TERMINALS, make_schedule("bridge", 3))
    written = write_guided(model, CONTEXTS, pulls=[pull], seeds=[5, 6], guidance_scale=scale, **how)
    assert [result.ids for result in found] == [row.ids for row in written]
    for result, row in zip(found, written, strict=True):
        assert_near(result.latents, row.latents, atol=1e-4)


# Policies -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(model: LatentModel) -> Callable[[str], list[SearchResult]]:
    """What a policy finds with the settings of `search`; found once."""
    return functools.cache(lambda policy: search(model, policy=policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_writes_whole_texts_within_its_budget(
    model: LatentModel, searched: Callable[[str], list[SearchResult]], policy: str
) -> None:
    by_tokens = search(model, policy=policy, budget=Budget(tokens=24 * SPAN))
    for results, tokens in ((searched(policy), 2 * NODES * SPAN), (by_tokens, 24 * SPAN)):
        for result in results:
            check_result(model, result, 3)
            assert result.finished and len(result.spans) == 3
            assert result.spent.tokens <= tokens
        assert results[0].tree is results[1].tree
        check_whole(results[0].tree)
    assert all(r.spent.nodes <= NODES for r in searched(policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_call_gives_the_same_result(
    model: LatentModel, searched: Callable[[str], list[SearchResult]], policy: str
) -> None:
    first, second = searched(policy), search(model, policy=policy)
    for name, array in first[0].tree.arrays().items():
        np.testing.assert_array_equal(array, second[0].tree.arrays()[name], err_msg=name)
    assert [r.ids for r in first] == [r.ids for r in second]


@pytest.mark.parametrize("policy", POLICIES)
def test_side_by_side_is_one_by_one(
    model: LatentModel, searched: Callable[[str], list[SearchResult]], policy: str
) -> None:
    for row, result in enumerate(searched(policy)):
        (alone,) = search(model, CONTEXTS[row : row + 1], terminals=TERMINALS[row], seeds=[5 + row], policy=policy)
        assert alone.ids == result.ids and alone.spans == result.spans and alone.status == result.status
        assert (alone.spent.tokens, alone.spent.nodes) == (result.spent.tokens, result.spent.nodes)
        assert alone.value == pytest.approx(result.value, abs=1e-3)
        assert_near(alone.latents, result.latents, atol=1e-3)


def test_small_batches_write_the_same(model: LatentModel) -> None:
    budget = Budget(nodes=10)
    assert [r.ids for r in search(model, rows=1, budget=budget)] == [r.ids for r in search(model, budget=budget)]


def test_without_pages_the_same_is_written(model: LatentModel) -> None:
    with_pages, without = (search(model, paged=paged, budget=Budget(nodes=12)) for paged in (True, False))
    assert [r.ids for r in with_pages] == [r.ids for r in without]


def test_more_is_better(model: LatentModel) -> None:
    """The search does search: with more nodes the best of n is never worse, and in the end it is better."""
    values = [search(model, policy="best_of_n", budget=Budget(nodes=n))[0].value for n in (3, 9, 36)]
    assert values[0] <= values[1] <= values[2] and values[0] < values[2]


def test_one_unguided_continuation_is_a_budget_of_one(model: LatentModel) -> None:
    (result,) = search(model, ["The"], terminals=None, menu=(Action(),), seeds=[1], budget=Budget(nodes=3))
    assert result.finished and not result.latents.any() and len(result.ids) == 3 * SPAN
    assert result.spent.tokens == 3 * SPAN and set(result.components) == {"fluency", "repetition"}


# Ends -----------------------------------------------------------------------------------------------------------------


def test_what_is_unfinished_says_so(model: LatentModel) -> None:
    for budget, status, spans in (
        (Budget(nodes=2), "out_of_nodes", 2),
        (Budget(tokens=2 * SPAN), "out_of_tokens", 1),
        (Budget(tokens=1), "out_of_tokens", 0),
        (Budget(seconds=1e-9), "out_of_time", 0),
    ):
        for result in search(model, budget=budget):
            check_result(model, result, 3)
            assert not result.finished and result.status in (status, "short") and len(result.spans) <= spans


@pytest.mark.parametrize("policy", POLICIES)
def test_stories_that_end_are_whole_texts(
    model: LatentModel, searched: Callable[[str], list[SearchResult]], policy: str
) -> None:
    endless = searched("best_of_n")[0].tree
    first = endless.tokens[2 : endless.size, :].ravel()
    common = int(np.bincount(first[first != EOS]).argmax())
    before = model.tokenizer.eos_token_id
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(common)
    try:
        results = search(model, policy=policy, limits=None)
    finally:
        model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(before)
    tree = results[0].tree
    ended = [n for n in range(tree.size) if tree.has(n, Status.ENDED)]
    assert ended
    for node in ended:
        span = tree.span(node)
        assert span[-1] == common and common not in span[:-1]
        assert tree.is_complete(node) and not list(tree.children(node))
    assert all(common not in tree.span(n) for n in range(tree.size) if n not in ended)
    for result in results:
        check_result(model, result, 3)


def test_with_a_later_deadline_texts_are_whole_and_compared_by_what_they_promise(model: LatentModel) -> None:
    results = search(model, spans=2, deadline=5, budget=Budget(nodes=12))
    scorer = Rewards(default_rewards(True, False), model)
    for result in results:
        check_result(model, result, 2)
        assert result.finished and len(result.spans) == 2
        path = result.tree.path(result.node)
        assert result.value == pytest.approx(scorer.combine(result.tree.components[path], False), abs=1e-5)


def test_ctrl_c_returns_what_was_found_and_it_can_be_gone_on_with(
    model: LatentModel, searched: Callable[[str], list[SearchResult]]
) -> None:
    calls: list[tuple[int, int | None]] = []

    def interrupt(tokens: int, most: int | None) -> None:
        calls.append((tokens, most))
        if len(calls) == 3:
            raise KeyboardInterrupt

    cut = search(model, on_progress=interrupt)
    assert [r.status for r in cut] == ["interrupted"] * 2
    for result in cut:
        check_result(model, result, 3)
    assert all(a < b for (a, _), (b, _) in zip(calls, calls[1:], strict=False))
    assert {most for _, most in calls} == {2 * NODES * 2 * SPAN}
    whole, resumed = searched("mcts"), search(model, tree=cut[0].tree)
    assert resumed[0].tree is cut[0].tree
    assert [(r.ids, r.status, r.value) for r in resumed] == [(r.ids, r.status, pytest.approx(r.value)) for r in whole]
    assert [(r.spent.tokens, r.spent.nodes) for r in resumed] == [(r.spent.tokens, r.spent.nodes) for r in whole]


def test_a_saved_search_goes_on(model: LatentModel, tmp_path: Any) -> None:
    from steer.search.tree_file import load_tree, save_tree

    small = search(model, policy="best_of_n", policy_options={"n": 2})
    save_tree(small[0].tree, tmp_path / "tree.safetensors", {"seeds": [5, 6]})
    tree, _ = load_tree(tmp_path / "tree.safetensors")
    resumed = search(model, policy="best_of_n", policy_options={"n": 6}, tree=tree)
    whole = search(model, policy="best_of_n", policy_options={"n": 6})
    assert [r.ids for r in resumed] == [r.ids for r in whole]
    assert resumed[0].tree.size == whole[0].tree.size


# Arguments ------------------------------------------------------------------------------------------------------------


def test_seeds_and_contexts(model: LatentModel) -> None:
    budget = Budget(nodes=6)
    one = search(model, seeds=3, budget=budget)
    assert [r.ids for r in one] != [r.ids for r in search(model, seeds=4, budget=budget)]
    assert [r.ids for r in one] == [
        r.ids for r in search(model, seeds=[derive_seed(3, 0), derive_seed(3, 1)], budget=budget)
    ]
    ids = [model.to_ids(c) for c in CONTEXTS]
    assert [r.ids for r in search(model, ids, budget=budget)] == [r.ids for r in search(model, budget=budget)]
    limit = model.latent_config.max_context
    (long, empty) = search(model, ["x" * 300, ""], budget=budget)
    assert len(long.context) == limit and empty.context == (EOS,)
    assert long.finished and empty.finished


def test_terminals_can_be_texts(model: LatentModel) -> None:
    texts = ["gold", "the end"]
    by_text, by_latent = (search(model, terminals=t, budget=Budget(nodes=8)) for t in (texts, model.encode(texts)))
    assert [r.ids for r in by_text] == [r.ids for r in by_latent]
    shared = search(model, terminals=TERMINALS[0], budget=Budget(nodes=8))
    assert shared[0].ids == search(model, budget=Budget(nodes=8))[0].ids


def test_pulls_instead_of_a_schedule(model: LatentModel) -> None:
    pull = Pull(TERMINALS, torch.tensor([[0.2, 0.4, 1.0], [1.0, 0.0, 0.3]]))
    results = search(model, pulls=[pull], terminals=None, menu=(Action(1.0),), budget=Budget(nodes=9))
    for row, result in enumerate(results):
        assert result.finished and set(result.components) == {"fluency", "repetition"}
        assert torch.equal(result.latents[2 if row == 0 else 0], TERMINALS[row])
    assert not results[1].latents[1].any()


def test_what_is_avoided_counts(model: LatentModel) -> None:
    results = search(model, avoid=latent(5)[None], budget=Budget(nodes=8))
    assert "avoid" in results[0].components


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"contexts": "The fox"}, TextError, "pass .text."),
        ({"contexts": []}, TextError, "no contexts"),
        ({"contexts": [[65], [258]]}, TextError, "context 1 must be text, or token ids from 0 to 257"),
        ({"contexts": [[65], [-1]]}, TextError, "context 1 must be text"),
        ({"contexts": [[65], [1.5]]}, TextError, "context 1 must be text"),
        ({"contexts": ["a", "\ud800"]}, TextError, "context"),
        ({"terminals": "gold"}, TextError, "terminals is one text"),
        ({"terminals": ["gold"] * 3}, LatentError, r"expected terminals \[2, 6\]"),
        ({"terminals": torch.zeros(2, 5)}, LatentError, r"got \[2, 5\]"),
        ({"terminals": torch.full((2, Z_DIM), torch.nan)}, LatentError, "NaN or infinity"),
        ({"terminals": None}, GuidanceError, "nothing to steer to"),
        ({"spans": 0}, GuidanceError, "spans must be an int of at least 1; got 0"),
        ({"deadline": 2}, SearchError, "deadline not before it; got 3 and 2"),
        ({"policy": "a_star"}, SearchError, "unknown policy 'a_star'; expected one of best_of_n"),
        ({"policy_options": {"n": 3}}, SearchError, "MctsConfig: n: unknown key"),
        ({"policy": "best_of_n", "policy_options": {"n": 0}}, SearchError, "BestOfNConfig: n: .*got 0"),
        ({"seeds": [1]}, SearchError, "a seed for each of 2 contexts; got 1"),
        ({"seeds": [1, -1]}, SamplingError, "a seed lies in"),
        ({"seeds": [1, 2**63]}, SearchError, "seeds lie in"),
        ({"menu": ()}, SearchError, "menu is empty"),
        ({"menu": (Action(temperature=0.5),), "sampling": SamplingConfig(temperature=0)}, SearchError, "greedy"),
        ({"schedule": "zigzag"}, GuidanceError, "zigzag"),
        (
            {"pulls": [Pull(torch.ones(Z_DIM), torch.ones(2))]},
            SearchError,
            r"weights \[3\] or longer; got \[6\] and \[2\]",
        ),
        ({"pulls": [Pull(torch.ones(3, Z_DIM), torch.ones(3))]}, GuidanceError, "does not fit 2 rows"),
        ({"pulls": [Pull(torch.ones(4), torch.ones(3))]}, SearchError, r"latents \[6\]"),
        ({"rewards": {"sense": 1.0}}, RewardError, "sense"),
        ({"rewards": {"reach": 1.0}}, RewardError, "reach"),
        ({"avoid": torch.ones(Z_DIM)}, SearchError, r"avoid of root 0 must be finite and \[a, 6\]"),
        ({"avoid": torch.ones(2, 5)}, SearchError, r"got \[2, 5\]"),
        ({"rows": 0}, SearchError, "rows=0"),
        ({"tree": Tree(SPAN, Z_DIM)}, SearchError, "the tree to go on with"),
    ],
)
def test_arguments_that_do_not_fit(
    model: LatentModel, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        search(model, **{"contexts": CONTEXTS, **options})


def test_a_reward_that_needs_a_terminal(model: LatentModel) -> None:
    with pytest.raises(RewardError, match="'similarity' needs terminals"):
        search(model, terminals=None, menu=(Action(),), rewards={"similarity": 1.0})


@pytest.mark.parametrize(
    "options",
    [{"spans": 4}, {"seeds": [5, 7]}, {"deadline": 4}, {"rewards": {"similarity": 1.0}}, {"contexts": ["a", "b"]}],
)
def test_another_search_cannot_be_gone_on_with(model: LatentModel, options: dict[str, Any]) -> None:
    tree = search(model, budget=Budget(nodes=4))[0].tree
    with pytest.raises(SearchError, match="the tree to go on with is of another model, other contexts, seeds"):
        search(model, **{"contexts": CONTEXTS, "tree": tree, **options})


# The model ------------------------------------------------------------------------------------------------------------


def test_a_search_leaves_no_trace_in_the_model(model: LatentModel) -> None:
    def write() -> list[tuple[tuple[int, ...], torch.Tensor]]:
        pull = Pull(latent(3), torch.tensor([0.5, 1.0]))
        rows = write_guided(model, CONTEXTS, pulls=[pull], spans=2, seeds=[1, 2], guidance_scale=1.4)
        return [(row.ids, row.drafts) for row in rows]

    before, attention = write(), model.peft.get_base_model().config._attn_implementation
    search(model, budget=Budget(nodes=6))
    after = write()
    assert model.peft.get_base_model().config._attn_implementation == attention
    assert [ids for ids, _ in before] == [ids for ids, _ in after]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True))


def test_bigvae_can_be_searched(minihf: LatentModel, caplog: pytest.LogCaptureFixture) -> None:
    terminals = torch.randn(2, minihf.latent_config.z_dim, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"terminals": terminals, "budget": Budget(nodes=8), "spans": 2}
    results = search(minihf, [[5, 6, 7], [9]], **options)
    for result in results:
        check_result(minihf, result, 2)
        assert result.finished
    assert "computes every prefix again" in caplog.text and "layout 'minihf'" in caplog.text
    with pytest.raises(UnsupportedBase, match="layout 'minihf'"):
        search(minihf, [[5, 6, 7], [9]], paged=True, **options)


def test_the_package_exports_what_it_says() -> None:
    assert sorted(steer.search.__all__) == sorted(dir(steer.search))
    assert all(hasattr(steer.search, name) for name in steer.search.__all__)
    assert steer.search.write_searched is write_searched
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = steer.search.nothing  # type: ignore[attr-defined]
