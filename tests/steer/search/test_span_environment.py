"""The world of spans: what is drafted, mixed, written, scored and charged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steer.errors import LatentError, RewardError, SearchError
from steer.latents.mixing import mix
from steer.latents.pull import Pull
from steer.models.latent_model import LatentModel
from steer.noise import child_key, derive_seed
from steer.rewards import Rewards
from steer.search.action import Action, Aim
from steer.search.budget import Budget
from steer.search.driver import run_search
from steer.search.engines.base import Engine, SpanRequest, SpanSample
from steer.search.engines.opening import open_engine
from steer.search.engines.paged import PagedEngine
from steer.search.environment import Request
from steer.search.policies import make_policy
from steer.search.span_environment import SpanEnvironment
from steer.search.tree import Tree
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from tests.steer.search.engine_kit import CONTEXTS, drawn, latent, wanted_logits
from tests.steer.search.test_driver import check_whole
from tests.steer.tiny import SPAN, Z_DIM, assert_near

REWARDS = {"similarity": 1.0, "near": {"reward": "similarity", "at": "potential"}, "fluency": 0.1, "repetition": -0.5}
MENU = (Action(), Action(1.0), Action(0.5, 1.6))
WEIGHTS = torch.tensor([0.25, 0.5, 0.75, 1.0])


def make_world(
    model: LatentModel,
    menu: Sequence[Action] = MENU,
    *,
    contexts: Sequence[Sequence[int]] = CONTEXTS[:2],
    pulls: Sequence[Pull] | None = None,
    rewards: Any = None,
    temperature: float = 0.9,
    horizon: int = 4,
    **options: Any,
) -> SpanEnvironment:
    """A world with a terminal per root, and roots that end nowhere."""
    scorer = Rewards(rewards or REWARDS, model)
    tree = Tree(SPAN, Z_DIM, scorer.names)
    for number, context in enumerate(contexts):
        tree.add_root(context, seed=40 + number, horizon=horizon)
    with_null = any(a.guidance_scale != 1 for a in menu)
    settings = {
        "sampling": SamplingConfig(temperature=temperature, top_p=1.0),
        "limits": Limits(may_end=False),
        **options,
    }
    engine = open_engine(model, tree, with_null=with_null, **settings)
    aims = []
    for number in range(len(contexts)):
        terminal = latent(70 + number)
        aims.append(Aim([Pull(terminal, WEIGHTS)] if pulls is None else pulls, terminal))
    return SpanEnvironment(engine, scorer, menu, aims)


def requests_for(world: SpanEnvironment, parents: Sequence[int], *, children: int = 3) -> list[Request]:
    tree = world.engine.tree
    return [
        Request(p, i, i % len(world.menu))
        for p in parents
        for i in range(int(tree.n_children[p]), int(tree.n_children[p]) + children)
    ]


def orders_of(engine: Engine) -> list[tuple[SpanRequest, bool, SpanSample]]:
    """Record what an engine is asked for, and what it drew."""
    seen: list[tuple[SpanRequest, bool, SpanSample]] = []
    inner = engine.write

    def record(order: SpanRequest, *, draft: bool = False) -> SpanSample:
        drawn = inner(order, draft=draft)
        seen.append((order, draft, drawn))
        return drawn

    engine.write = record  # type: ignore[method-assign]
    return seen


def grown(world: SpanEnvironment, depth: int = 2, *, children: int = 3) -> list[int]:
    tree = world.engine.tree
    level = list(tree.roots)
    for _ in range(depth):
        nodes = world.expand(tree, requests_for(world, level, children=children))
        level = [n for root in tree.roots for n in [m for m in nodes if tree.root[m] == root][:2]]
    return level


# Latents --------------------------------------------------------------------------------------------------------------


def test_children_are_written_from_the_mix_of_draft_and_pulls(model: LatentModel) -> None:
    world = make_world(model)
    engine, tree = world.engine, world.engine.tree
    level = grown(world, 1)
    seen = orders_of(engine)
    requests = requests_for(world, level)
    nodes = world.expand(tree, requests)
    (drafts, is_draft, draft_draw), (_, _, draw) = seen
    assert is_draft and list(drafts.parents) == level and drafts.z is None
    assert list(drafts.seeds) == [derive_seed(int(tree.key[p]), "draft") for p in level]
    latents = model.encode_ids(draft_draw.spans)
    for parent, wanted in zip(level, latents, strict=True):
        assert tree.has_draft[parent] and torch.equal(torch.from_numpy(tree.draft[parent]), wanted)
    for node, request, span in zip(nodes, requests, draw.spans, strict=True):
        assert tree.span(node) == span and int(tree.action[node]) == request.action
        action, aim = world.menu[request.action], world.aims[tree.number(node)]
        draft = latents[level.index(request.parent)]
        written_from = torch.from_numpy(tree.written_from[node].copy())
        if action.strength == 0:
            assert not written_from.any()
        else:
            pull = Pull(aim.pulls[0].latent, WEIGHTS * action.strength)
            assert torch.equal(written_from, mix(draft[None], [pull], 1)[0])
        wanted = wanted_logits(model, tree, node, action.guidance_scale)
        wanted[:, engine.eos] = -torch.inf
        ids, logprob = drawn(tree, node, wanted, 0.9)
        assert ids == span and float(tree.logprob[node]) == pytest.approx(logprob, abs=5e-3)
        assert_near(torch.from_numpy(tree.latent[node].copy()), model.encode_ids([span])[0], atol=1e-5)


def test_drafts_are_made_once_per_parent_and_only_where_something_is_mixed(model: LatentModel) -> None:
    world = make_world(model, (Action(), Action(1.0)))
    tree = world.engine.tree
    seen = orders_of(world.engine)
    world.expand(tree, [Request(0, 0, 0), Request(1, 0, 0)])  # unguided
    assert [draft for _, draft, _ in seen] == [False] and not tree.has_draft.any()
    world.expand(tree, [Request(0, 1, 1), Request(1, 2, 0), Request(0, 3, 1)])
    assert [(list(order.parents), draft) for order, draft, _ in seen[1:]] == [([0], True), ([0, 0, 1], False)]
    world.expand(tree, [Request(0, 5, 1), Request(1, 3, 1)])
    assert [(list(order.parents), draft) for order, draft, _ in seen[3:]] == [([1], True), ([0, 1], False)]
    assert world.draft_tokens == 2 * SPAN and tree.has_draft[:2].all()


def test_at_weight_one_spans_are_written_from_the_terminal_itself(model: LatentModel) -> None:
    world = make_world(model, (Action(1.0), Action(4.0)))
    tree = world.engine.tree
    seen = orders_of(world.engine)
    # By four times 0.25 the second action is there at once, the first one only at the last span.
    nodes = world.expand(tree, [Request(0, 1, 1), Request(1, 1, 1)])
    assert [draft for _, draft, _ in seen] == [False] and not tree.has_draft.any()
    for node in nodes:
        terminal = world.aims[tree.number(node)].terminal
        assert terminal is not None and torch.equal(torch.from_numpy(tree.written_from[node]), terminal)
    node = nodes[0]
    for _ in range(2):
        node = world.expand(tree, [Request(node, 0, 0)])[0]
        assert not torch.equal(torch.from_numpy(tree.written_from[node]), world.aims[0].pulls[0].latent)
    last = world.expand(tree, [Request(node, 0, 0)])[0]
    assert torch.equal(torch.from_numpy(tree.written_from[last]), world.aims[0].pulls[0].latent)
    assert not tree.has_draft[node]


def test_what_is_avoided_is_avoided_as_it_is(model: LatentModel) -> None:
    pulls = [Pull(latent(1), WEIGHTS), Pull(latent(2), torch.full((4,), 0.9), avoid=True)]
    world = make_world(model, (Action(), Action(0.5)), pulls=pulls)
    tree = world.engine.tree
    unguided, guided = world.expand(tree, [Request(0, 0, 0), Request(0, 1, 1)])
    assert not tree.written_from[unguided].any()
    draft = torch.from_numpy(tree.draft[0].copy())
    wanted = mix(draft[None], [Pull(latent(1), WEIGHTS * 0.5), pulls[1]], 0)[0]
    assert torch.equal(torch.from_numpy(tree.written_from[guided]), wanted)


@pytest.mark.parametrize("scale", [1.0, 1.5], ids=["plain", "null-arm"])
def test_strength_zero_is_unguided_bit_for_bit(model: LatentModel, scale: float) -> None:
    guided = make_world(model, (Action(0.0, 1.0), Action(1.0, scale)))
    plain = make_world(model, (Action(),), pulls=())
    for world in (guided, plain):
        tree = world.engine.tree
        first = world.expand(tree, [Request(0, 0, 0), Request(1, 0, 0)])
        world.expand(tree, [Request(n, 0, 0) for n in first])
    for name, array in guided.engine.tree.arrays().items():
        wanted = plain.engine.tree.arrays()[name]
        if scale != 1 and array.dtype == np.float32:  # twice the rows: sums may be rounded otherwise
            np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(array, wanted, err_msg=name)
    assert guided.draft_tokens == 0


def test_a_latent_of_zeros_steers_nothing_as_zeros_in_the_tree_say(model: LatentModel) -> None:
    zero = [Pull(torch.zeros(Z_DIM), torch.ones(4))]
    worlds = [make_world(model, (Action(1.0),), pulls=zero), make_world(model, (Action(),), pulls=())]
    for world in worlds:
        node = world.expand(world.engine.tree, [Request(0, 0, 0)])[0]
        assert isinstance(world.engine, PagedEngine)
        world.engine.prefix.pool.release([node])  # it is computed again from what the tree says
        world.expand(world.engine.tree, [Request(node, 0, 0)])
    first, second = (world.engine.tree.tokens[:4] for world in worlds)
    np.testing.assert_array_equal(first, second)


def test_actions_have_their_own_temperatures(model: LatentModel) -> None:
    world = make_world(model, (Action(), Action(temperature=0.01)))
    tree = world.engine.tree
    nodes = world.expand(tree, [Request(0, i, i % 2) for i in range(8)])
    hot, cold = ({tuple(tree.span(n)) for n in nodes if tree.action[n] == action} for action in (0, 1))
    assert len(hot) == 4 and len(cold) == 1
    plain = make_world(model, (Action(),))
    again = plain.expand(plain.engine.tree, [Request(0, i, 0) for i in range(0, 8, 2)])
    assert {tuple(plain.engine.tree.span(n)) for n in again} == hot


# Values ---------------------------------------------------------------------------------------------------------------


def test_values_are_what_the_rewards_make_of_the_whole_path(model: LatentModel) -> None:
    world = make_world(model)
    tree = world.engine.tree
    level = grown(world, 3)
    world.expand(tree, requests_for(world, level))
    scorer = world.rewards
    for node in range(2, tree.size):
        path = tree.path(node)
        final = tree.is_complete(node)
        assert final == (len(path) == 4)
        assert float(tree.value[node]) == pytest.approx(scorer.combine(tree.components[path], final), abs=1e-5)
        columns = dict(zip(scorer.names, tree.components[node], strict=True))
        terminal = world.aims[tree.number(node)].terminal
        assert terminal is not None
        cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(tree.latent[node].copy()), terminal, dim=0)
        assert columns["similarity"] == pytest.approx(float(cosine), abs=1e-5)
        base = world.engine.base_logprobs([int(tree.parent[node])], [tree.span(node)])
        assert columns["fluency"] == pytest.approx(float(base[0]), abs=1e-4)


def test_with_a_later_deadline_the_horizon_is_no_end(model: LatentModel) -> None:
    world = make_world(model, (Action(),), horizon=1)
    tree = world.engine.tree
    tree.deadlines[1] = 3
    nodes = world.expand(tree, [Request(0, 0), Request(1, 0)])
    assert all(tree.is_complete(n) for n in nodes)
    ends = [world.rewards.combine(tree.components[[n]], final) for n, final in zip(nodes, (True, False), strict=True)]
    np.testing.assert_allclose(tree.value[nodes], ends, atol=1e-6)


# Order, packing and costs ---------------------------------------------------------------------------------------------


def test_nodes_come_back_in_the_order_of_the_requests(model: LatentModel) -> None:
    world = make_world(model)
    tree = world.engine.tree
    level = grown(world, 1)
    requests = requests_for(world, level)
    mixed = [requests[i] for i in np.random.default_rng(0).permutation(len(requests))]
    nodes = world.expand(tree, mixed)
    for node, request in zip(nodes, mixed, strict=True):
        assert (tree.parent[node], tree.index[node], tree.action[node]) == (
            request.parent,
            request.index,
            request.action,
        )
        assert tree.key[node] == child_key(int(tree.key[request.parent]), request.index)


def test_children_do_not_depend_on_what_is_expanded_with_them(model: LatentModel) -> None:
    whole, split = make_world(model), make_world(model)
    for world in (whole, split):
        grown(world, 1)
    tree = whole.engine.tree
    requests = requests_for(whole, [2, 3, 5, 6])
    nodes = whole.expand(tree, requests)
    other = split.engine.tree
    again: dict[Request, int] = {}
    for request in requests[::-1]:
        again[request] = split.expand(other, [request])[0]
    for node, request in zip(nodes, requests, strict=True):
        duplicate_of = again[request]
        assert tree.span(node) == other.span(duplicate_of)
        for name in ("written_from", "latent", "components", "value", "logprob"):
            np.testing.assert_allclose(
                getattr(tree, name)[node], getattr(other, name)[duplicate_of], atol=2e-3, err_msg=name
            )


@pytest.mark.parametrize("policy", ["best_of_n", "beam", "mcts"])
@pytest.mark.parametrize("rows", [3, 128])
def test_what_is_charged_is_what_is_written(model: LatentModel, policy: str, rows: int) -> None:
    world = make_world(model, (Action(), Action(2.0)))
    tree = world.engine.tree
    outcomes = run_search(world, tree, tree.roots, *make_policy(policy), Budget(tokens=26 * SPAN), actions=2, rows=rows)
    nodes = tree.size - 2
    assert world.draft_tokens > 0
    assert sum(o.spent.tokens for o in outcomes) == SPAN * nodes + world.draft_tokens
    assert sum(o.spent.nodes for o in outcomes) == nodes
    assert all(o.spent.tokens <= 26 * SPAN for o in outcomes)
    assert world.draft_tokens == SPAN * int(tree.has_draft.sum())


def test_costs_charge_a_draft_to_the_first_that_needs_it(model: LatentModel) -> None:
    world = make_world(model, (Action(), Action(1.0), Action(8.0)))
    tree = world.engine.tree
    requests = [
        Request(0, 0, 0),
        Request(0, 1, 1),
        Request(0, 2, 2),
        Request(1, 0, 2),
        Request(1, 1, 1),
        Request(1, 4, 1),
    ]
    for _ in range(2):  # nodes that are there already are charged the same
        drafted: set[int] = set()
        assert world.costs(tree, requests, drafted) == [SPAN, 2 * SPAN, SPAN, SPAN, 2 * SPAN, SPAN]
        assert drafted == {0, 1}
        assert world.costs(tree, requests, drafted) == [SPAN] * 6
        if not tree.child(0, 0):
            world.expand(tree, requests)
    assert world.node_tokens(tree, 1) == 2 * SPAN and world.node_tokens(tree, 4) == 1.25 * SPAN
    assert make_world(model, (Action(),)).node_tokens(tree, 1) == SPAN


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["write", "encode_ids", "score", "base_logprobs"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_added_where_something_breaks(
    model: LatentModel, place: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(model)
    tree = world.engine.tree
    level = grown(world, 1)
    before = {name: array.copy() for name, array in tree.arrays().items()}
    owner = {"write": world.engine, "encode_ids": model, "score": world.rewards, "base_logprobs": world.engine}[place]

    def fail(*args: object, **kwargs: object) -> None:
        raise error("stop")

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, fail)
        with pytest.raises(error):
            world.expand(tree, requests_for(world, level))
    for name, array in before.items():
        np.testing.assert_array_equal(tree.arrays()[name], array, err_msg=name)
    check_whole(tree)
    world.expand(tree, requests_for(world, level))
    check_whole(tree)


def test_ctrl_c_in_a_batch_ends_a_search(model: LatentModel) -> None:
    whole, cut = make_world(model), make_world(model)
    policy, budget = make_policy("mcts"), Budget(nodes=24)
    run_search(whole, whole.engine.tree, whole.engine.tree.roots, *policy, budget, actions=3)
    tree, inner = cut.engine.tree, cut.engine.commit
    calls = 0

    def interrupt(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        inner(*args)

    cut.engine.commit = interrupt  # type: ignore[method-assign]
    outcomes = run_search(cut, tree, tree.roots, *policy, budget, actions=3)
    assert [o.status for o in outcomes] == ["interrupted"] * 2
    check_whole(tree)
    outcomes = run_search(cut, tree, tree.roots, *policy, budget, actions=3)
    assert [o.spent.nodes for o in outcomes] == [24, 24]
    np.testing.assert_array_equal(tree.tokens[: tree.size], whole.engine.tree.tokens[: tree.size])


def test_latents_that_are_no_numbers_are_refused(model: LatentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(model)
    monkeypatch.setattr(model, "encode_tokens", lambda ids, mask: torch.full((len(ids), Z_DIM), torch.nan))
    with pytest.raises(LatentError, match="encoder gave NaN"):
        world.expand(world.engine.tree, [Request(0, 0, 0)])
    assert world.engine.tree.size == 2


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"strength": -0.1}, "strength lies in"),
        ({"strength": float("nan")}, "strength lies in"),
        ({"guidance_scale": 21.0}, "scale in"),
        ({"temperature": 0.0}, "temperature lies in"),
        ({"temperature": float("inf")}, "temperature lies in"),
    ],
)
def test_actions_that_make_no_sense(values: dict[str, float], match: str) -> None:
    with pytest.raises(SearchError, match=match):
        Action(**values)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"menu": ()}, "menu is empty"),
        ({"menu": (Action(temperature=0.5),), "temperature": 0}, "sampling is greedy"),
        ({"contexts": [[65], []]}, "root 1 has no context"),
        ({"pulls": [Pull(torch.ones(Z_DIM + 1), WEIGHTS)]}, r"latents \[6\].*got \[7\]"),
        ({"pulls": [Pull(torch.ones(Z_DIM), WEIGHTS[:3])]}, r"weights \[4\] or longer; got \[6\] and \[3\]"),
        ({"pulls": [Pull(torch.ones(Z_DIM), WEIGHTS[None])]}, r"got \[6\] and \[1, 4\]"),
        ({"rewards": {"reach": 1.0}}, "reach"),
    ],
)
def test_worlds_that_make_no_sense(model: LatentModel, options: dict[str, Any], match: str) -> None:
    with pytest.raises((SearchError, RewardError), match=match):
        make_world(model, **options)


def test_aims_and_null_arms_must_be_there(model: LatentModel) -> None:
    world = make_world(model, (Action(),))
    with pytest.raises(SearchError, match="an aim for each of 2 roots; got 1"):
        SpanEnvironment(world.engine, world.rewards, world.menu, world.aims[:1])
    with pytest.raises(SearchError, match="null arm"):
        SpanEnvironment(world.engine, world.rewards, (Action(1.0, 1.5),), world.aims)
    bad: list[tuple[Tensor | None, Tensor | None, str]] = [
        (torch.full((Z_DIM,), torch.nan), None, "terminal of root 1 must be finite"),
        (torch.ones(3), None, r"must be finite and \[6\]; got \[3\]"),
        (torch.ones(Z_DIM), torch.ones(Z_DIM), r"avoid of root 1 must be finite and \[a, 6\]; got \[6\]"),
    ]
    for terminal, avoid, match in bad:
        with pytest.raises(SearchError, match=match):
            SpanEnvironment(world.engine, world.rewards, world.menu, [world.aims[0], Aim((), terminal, avoid)])
    mixed = SpanEnvironment(world.engine, world.rewards, world.menu, [world.aims[0], Aim()])
    with pytest.raises(SearchError, match="either all roots of one search have a terminal"):
        mixed.expand(world.engine.tree, [Request(0, 0), Request(1, 0)])
