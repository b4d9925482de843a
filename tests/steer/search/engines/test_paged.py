"""The engine with pages: what it writes is what passes over whole paths write, and it does the work once."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from steer.errors import LatentError, SearchError
from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.search.engines.base import SpanRequest
from steer.search.engines.paged import PagedEngine
from steer.search.engines.prefill import PrefillEngine
from steer.search.fields import Status
from steer.search.tree import Tree
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from tests.steer.search.engine_kit import (
    CONTEXTS,
    PAGED,
    Wish,
    drawn,
    grow,
    latent,
    new_tree,
    order_of,
    spy,
    wanted_logits,
)
from tests.steer.tiny import SOFT, SPAN, Z_DIM, assert_near, forced_logits, marks_of, sharpen, tiny_model

ENDLESS = Limits(may_end=False)
SAMPLING = SamplingConfig(temperature=0.9, top_p=1.0)


def open_paged(model: LatentModel, tree: Tree, *, with_null: bool = False, memory: int = 2**30) -> PagedEngine:
    return PagedEngine(model, tree, sampling=SAMPLING, with_null=with_null, limits=ENDLESS, memory=memory)


def node_bytes(engine: PagedEngine) -> int:
    """Bytes kept per node, of both arms where there is a null arm."""
    return engine.prefix.pool.page_bytes * engine.arms


def wishes_for(tree: Tree, parents: Sequence[int], *, children: int = 3, scale: float = 1.0) -> list[Wish]:
    """Children of nodes: every third unguided, the others from two latents, siblings side by side."""
    return [
        Wish(p, i) if i % 3 == 2 else Wish(p, i, latent(1000 * p + i % 3), scale if i % 2 == 0 else 1.0)
        for p in parents
        for i in range(int(tree.n_children[p]), int(tree.n_children[p]) + children)
    ]


def check_nodes(
    engine: PagedEngine | PrefillEngine,
    nodes: Sequence[int],
    wishes: Sequence[Wish],
    seen: Sequence[Tensor],
    atol: float,
) -> None:
    """Logits, tokens and log-probabilities of children, against passes over their whole paths."""
    tree, model = engine.tree, engine.model
    for row, (node, wish) in enumerate(zip(nodes, wishes, strict=True)):
        wanted = wanted_logits(model, tree, node, wish.scale)
        assert wanted.std() > 0.1
        assert_near(torch.stack([step[row] for step in seen]), wanted, atol=atol)
        wanted[:, [*marks_of(engine.model), engine.eos]] = -torch.inf
        ids, logprob = drawn(tree, node, wanted, SAMPLING.temperature)
        assert tree.span(node) == ids
        assert float(tree.logprob[node]) == pytest.approx(logprob, abs=SPAN * atol)


def grow_and_check(engine: PagedEngine | PrefillEngine, wishes: Sequence[Wish], atol: float = 1e-4) -> list[int]:
    seen = spy(engine)
    nodes, _ = grow(engine, wishes)
    check_nodes(engine, nodes, wishes, seen, atol)
    del engine._sampler
    return nodes


def grown(engine: PagedEngine, depth: int, scale: float = 1.0, atol: float = 1e-4) -> list[int]:
    """Grow and check level by level below all roots, two parents of each root at most; returns the last level."""
    level = list(engine.tree.roots)
    for _ in range(depth):
        nodes = grow_and_check(engine, wishes_for(engine.tree, level, scale=scale), atol)
        tree = engine.tree
        level = [n for root in tree.roots for n in [m for m in nodes if tree.root[m] == root][:2]]
    return level


# Every family ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1.7], ids=["plain", "null-arm"])
@pytest.mark.parametrize("family", PAGED)
def test_children_are_those_of_whole_passes(family: str, scale: float, of_family: Callable[[str], LatentModel]) -> None:
    model = of_family(family)
    tree = new_tree()
    engine = open_paged(model, tree, with_null=scale != 1)
    leaves = grown(engine, 2, scale, atol=2e-4)
    # Parents of depths 0 to 2, of roots with prompts of 16, 1, 7 and 7 tokens.
    mixed = [tree.roots[2], *leaves[:3], tree.roots[0], int(tree.parent[leaves[-1]]), leaves[-1]]
    grow_and_check(engine, wishes_for(tree, mixed, children=2, scale=scale), atol=2e-4)


@pytest.mark.parametrize("family", PAGED)
def test_base_logprobs_are_those_of_whole_passes(family: str, of_family: Callable[[str], LatentModel]) -> None:
    model = of_family(family)
    tree = new_tree()
    engine = open_paged(model, tree)
    for _ in range(2):
        grow(engine, wishes_for(tree, [*tree.roots, *range(4, tree.size, 3)], children=2))
    parents = [*tree.roots, tree.size - 1, 5, 5, tree.size - 2]
    spans = [[3, 1, 4, 1, 5, 9, 2, 6][: 1 + i % 8] for i in range(len(parents))]
    got = engine.base_logprobs(parents, spans)
    assert got.dtype == torch.float32
    for value, parent, span in zip(got, parents, spans, strict=True):
        before = [*tree.context(parent), *tree.ids(parent)]
        logprobs = forced_logits(model, None, before, [(None, span)])[0].log_softmax(1)
        assert_near(value, logprobs[torch.arange(len(span)), torch.tensor(span)].mean())
    assert_near(PrefillEngine(model, tree, sampling=SAMPLING).base_logprobs(parents, spans), got)


# One family, everything else ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "on-the-fly"])
@pytest.mark.parametrize("scale", [1.0, 1.5], ids=["plain", "null-arm"])
def test_four_spans_deep(model: LatentModel, fuse: bool, scale: float) -> None:
    model.fuse = fuse
    try:
        engine = open_paged(model, new_tree(CONTEXTS[:2]), with_null=scale != 1)
        grown(engine, 4, scale, atol=3e-4 if scale != 1 else 1e-4)
        tree = engine.tree
        span = tree.span(tree.size - 1)
        value = engine.base_logprobs([tree.size - 1], [span])
        before = [*tree.context(tree.size - 1), *tree.ids(tree.size - 1)]
        logprobs = forced_logits(model, None, before, [(None, span)])[0].log_softmax(1)
        assert_near(value[0], logprobs[torch.arange(SPAN), torch.tensor(span)].mean())
    finally:
        model.fuse = True


@pytest.mark.parametrize("scale", [1.0, 1.5], ids=["plain", "null-arm"])
def test_pages_that_were_given_up_are_computed_again(model: LatentModel, scale: float) -> None:
    engine = open_paged(model, new_tree(CONTEXTS[:2]), with_null=scale != 1)
    leaves = grown(engine, 3, scale, atol=3e-4)
    tree = engine.tree
    engine.prefix.pool.release([n for n in range(tree.size) if n % 2 or n in leaves])
    grow_and_check(engine, wishes_for(tree, leaves, scale=scale), atol=3e-4)
    engine.prefix.pool.release(range(tree.size))
    assert engine.prefix.pool.used_bytes == 0
    grow_and_check(engine, wishes_for(tree, leaves, scale=scale), atol=3e-4)
    # Another engine finds no pages at all, like one that goes on with a saved tree.
    other = open_paged(model, tree, with_null=scale != 1)
    grow_and_check(other, wishes_for(tree, [*leaves, tree.roots[1]], scale=scale), atol=3e-4)


@pytest.mark.parametrize("scale", [1.0, 1.5], ids=["plain", "null-arm"])
def test_a_small_memory_costs_time_and_changes_nothing(model: LatentModel, scale: float) -> None:
    large = open_paged(model, new_tree(CONTEXTS[:2]), with_null=scale != 1)
    grow(large, wishes_for(large.tree, large.tree.roots, scale=scale))
    small = open_paged(model, new_tree(CONTEXTS[:2]), with_null=scale != 1, memory=5 * node_bytes(large) + 100)
    grow(small, wishes_for(small.tree, small.tree.roots, scale=scale))
    # Of the nodes of each level five are kept, and for the next one paths of more than five nodes are needed.
    for level in (range(2, 8), range(8, 26, 2), range(26, 50, 5)):
        wishes = wishes_for(large.tree, level, scale=scale)
        draws = [grow(engine, wishes)[1] for engine in (small, large)]
        assert draws[0].spans == draws[1].spans
        assert_near(draws[0].logprobs, draws[1].logprobs, atol=3e-4)
        assert small.prefix.pool.used_bytes <= small.memory
    assert small.prefix.pool.evictions > 0 and large.prefix.pool.evictions == 0
    assert small.prefix.forward_tokens > large.prefix.forward_tokens
    parents = [0, 1, 5, 9, 30, 40, 52, 53]
    values = [e.base_logprobs(parents, [[1, 2, 3]] * len(parents)) for e in (small, large)]
    assert_near(values[0], values[1], atol=1e-5)


def test_a_memory_that_holds_no_path_is_refused_and_nothing_is_added(model: LatentModel) -> None:
    engine = open_paged(model, new_tree(CONTEXTS[:1]))
    leaf = grown(engine, 3)[0]
    tree, size = engine.tree, engine.tree.size
    tiny = open_paged(model, tree, memory=2 * node_bytes(engine))
    with pytest.raises(SearchError, match="do not fit into .* allow more memory"):
        tiny.write(order_of(tree, [Wish(leaf, 0)]))
    assert tree.size == size
    grow_and_check(tiny, wishes_for(tree, [int(tree.parent[leaf])]))


@pytest.mark.parametrize("scale", [1.0, 1.5], ids=["plain", "null-arm"])
def test_packing_does_not_count(model: LatentModel, scale: float) -> None:
    engine = open_paged(model, new_tree(), with_null=scale != 1)
    leaves = grown(engine, 2, scale, atol=3e-4)
    tree = engine.tree
    wishes = wishes_for(tree, [*leaves[:3], tree.roots[1], leaves[-1]], scale=scale)
    whole = engine.write(order_of(tree, wishes, scales=engine.with_null))
    for seed in range(4):
        mixed = random.Random(seed).sample(range(len(wishes)), len(wishes))
        size = (1, 4, 6, len(wishes))[seed]
        for at in range(0, len(mixed), size):
            rows = mixed[at : at + size]
            part = engine.write(order_of(tree, [wishes[r] for r in rows], scales=engine.with_null))
            assert part.spans == [whole.spans[r] for r in rows]
            assert_near(part.logprobs, whole.logprobs[rows], atol=2e-4)


def test_a_draft_is_unguided_writing_with_another_seed_and_leaves_nothing(model: LatentModel) -> None:
    engine = open_paged(model, new_tree(), with_null=True)
    leaves = grown(engine, 1, 1.5, atol=3e-4)
    order = SpanRequest(leaves, list(range(len(leaves))))
    used = engine.prefix.pool.used_bytes
    draft = engine.write(order, draft=True)
    assert engine.prefix.pool.used_bytes == used
    assert draft.spans == engine.write(order).spans == open_paged(model, engine.tree).write(order).spans
    prefill = PrefillEngine(model, engine.tree, sampling=SAMPLING, with_null=True, limits=ENDLESS)
    assert prefill.write(order, draft=True).spans == draft.spans


def test_scale_one_and_no_null_arm_are_the_same(model: LatentModel) -> None:
    trees = [new_tree(), new_tree()]
    for tree, with_null in zip(trees, (False, True), strict=True):
        grown(open_paged(model, tree, with_null=with_null), 2)
    first, second = (tree.tokens[: tree.size] for tree in trees)
    np.testing.assert_array_equal(first, second)


def test_temperatures_and_penalties_per_row(model: LatentModel) -> None:
    tree = new_tree(CONTEXTS[:1])
    cold, plain = (SamplingConfig(temperature=t, repetition_penalty=1.3, top_k=20) for t in (0.3, 0.9))
    orders = [
        SpanRequest([0] * 4, [1, 2, 3, 4]),
        SpanRequest([0] * 4, [1, 2, 3, 4], temperatures=torch.tensor([0.3, 0.9] * 2)),
    ]
    options: dict[str, Any] = {"limits": ENDLESS}
    mixed = PagedEngine(model, tree, sampling=plain, **options).write(orders[1])
    for sampling, rows in ((cold, [0, 2]), (plain, [1, 3])):
        alone = PagedEngine(model, tree, sampling=sampling, **options).write(orders[0])
        assert [mixed.spans[r] for r in rows] == [alone.spans[r] for r in rows]
        assert_near(mixed.logprobs[rows], alone.logprobs[rows], atol=1e-3)
        # A span that repeats itself less: no token is drawn for whose logits the penalty was left out.
        prefill = PrefillEngine(model, tree, sampling=sampling, **options).write(orders[0])
        assert prefill.spans == alone.spans


def test_greedy_needs_no_noise(model: LatentModel) -> None:
    tree = new_tree(CONTEXTS[:1])
    draw = PagedEngine(model, tree, sampling=SamplingConfig(temperature=0), limits=ENDLESS).write(
        SpanRequest([0] * 2, [1, 2])
    )
    node = tree.add(0, 0, draw.spans[0])
    wanted = wanted_logits(model, tree, node)
    wanted[:, [*marks_of(model), 256]] = -torch.inf
    assert draw.spans == [wanted.argmax(1).tolist()] * 2
    assert float(draw.logprobs[0]) == pytest.approx(float(wanted.log_softmax(1).amax(1).sum()), abs=1e-3)


def test_stories_end_where_the_end_token_is_drawn(model: LatentModel) -> None:
    tree = new_tree(CONTEXTS[:1])
    order = SpanRequest([0] * 6, list(range(6)))
    endless = open_paged(model, tree).write(order)
    for engine in (open_paged(model, tree), PrefillEngine(model, tree, sampling=SAMPLING, limits=ENDLESS)):
        engine.limits, engine.eos = Limits(), endless.spans[2][3]
        draw = engine.write(order)
        assert draw.ended[2] and len(draw.spans[2]) <= 4
        for row, (span, ended) in enumerate(zip(draw.spans, draw.ended, strict=True)):
            whole = endless.spans[row]
            assert ended == (engine.eos in whole)
            assert span == (whole[: whole.index(engine.eos) + 1] if ended else whole)
        node = tree.add(0, tree.size, draw.spans[2], ended=True)
        logits = wanted_logits(model, tree, node) / SAMPLING.temperature
        wanted = logits.log_softmax(1)[torch.arange(len(draw.spans[2])), torch.tensor(draw.spans[2])].sum()
        assert float(draw.logprobs[2]) == pytest.approx(float(wanted), abs=1e-3)
        assert tree.has(node, Status.ENDED)


def test_words_are_not_gone_on_with_behind_a_root_alone(model: LatentModel) -> None:
    tree = new_tree(CONTEXTS[:1])
    inside = model.continuation_tokens
    engine = PagedEngine(model, tree, sampling=SAMPLING, limits=Limits(may_end=False, whole_words=True))
    nodes, draw = grow(engine, [Wish(0, i) for i in range(24)])
    assert not any(inside[span[0]] for span in draw.spans)
    deeper = engine.write(SpanRequest([nodes[0]] * 24, list(range(24))))
    assert any(inside[span[0]] for span in deeper.spans)


def test_numbers_that_are_none_are_refused_and_the_tree_stays_whole(tiny_llama: object) -> None:
    broken = tiny_model(str(tiny_llama))
    tree = new_tree(CONTEXTS[:1])
    engine = open_paged(broken, tree)
    grow(engine, [Wish(0, 0)])
    broken.peft.get_base_model().get_output_embeddings().weight.data[5] = torch.nan
    for which in (engine, PrefillEngine(broken, tree, sampling=SAMPLING)):
        with pytest.raises(LatentError, match="NaN or infinite logits"):
            which.write(order_of(tree, [Wish(0, 1), Wish(1, 0, latent(1))]))
    assert tree.size == 2
    broken.peft.get_base_model().get_output_embeddings().weight.data[5] = 0.0
    nodes, _ = grow(engine, [Wish(1, 0, latent(1))])
    assert len(tree.span(nodes[0])) == SPAN


# Work and memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arms", [1, 2])
def test_sixteen_siblings_cost_a_pass_per_token_and_less(model: LatentModel, arms: int) -> None:
    tree = new_tree(CONTEXTS[:1])
    engine = open_paged(model, tree, with_null=arms == 2)
    parent, spent = tree.roots[0], 0
    for depth in range(3):
        nodes, _ = grow(engine, [Wish(parent, i, latent(depth)) for i in range(16)])
        prompt = len(CONTEXTS[0]) - 1 if depth == 0 else 0  # of a root, once and for both arms
        positions, spent = engine.forward_tokens - spent - prompt, engine.forward_tokens
        assert positions == arms * (16 * (SPAN - 1) + SOFT + 1)
        assert positions <= 1.1 * arms * 16 * SPAN
        parent = nodes[3]


@pytest.mark.parametrize("arms", [1, 2])
def test_a_node_takes_the_memory_of_its_span(tiny_llama: object, arms: int) -> None:
    wide = tiny_model(str(tiny_llama), span_tokens=32, soft_tokens=4)
    tree = new_tree(CONTEXTS[:2], span_tokens=32, horizon=2)
    engine = open_paged(wide, tree, with_null=arms == 2)
    assert node_bytes(engine) == 0
    nodes, _ = grow(engine, wishes_for(tree, tree.roots, children=4))
    layers, kv_heads, head_dim = 2, 2, 8
    span = 2 * layers * kv_heads * 32 * head_dim * 4
    assert span * arms <= node_bytes(engine) <= 1.2 * span * arms
    assert engine.prefix.pool.used_bytes == len(nodes) * node_bytes(engine)
    # Complete nodes are never expanded, so nothing is kept of them.
    grow(engine, wishes_for(tree, nodes[:2]))
    assert engine.prefix.pool.used_bytes == len(nodes) * node_bytes(engine)


@pytest.mark.parametrize("arms", [1, 2])
def test_what_rows_share_is_held_once(model: LatentModel, arms: int) -> None:
    tree = new_tree(CONTEXTS[:1])
    engine = open_paged(model, tree, with_null=arms == 2)
    nodes, _ = grow(engine, wishes_for(tree, [0], children=4))
    segments, _ = engine.prefix.prefix([0] * 8, arms)
    assert [x.keys.shape[0] for x in segments[0]] == [1] and segments[0][0].keys.shape[2] == len(CONTEXTS[0]) - 1
    segments, _ = engine.prefix.prefix([nodes[0]] * 4 + [nodes[1]] * 4, arms)
    assert [x.keys.shape[0] for x in segments[1]] == [1, 2 * arms]
    assert segments[1][1].keys.shape[2] == SOFT + SPAN
    before = engine.forward_tokens
    engine.prefix.ensure([*nodes, 0])
    assert engine.forward_tokens == before


def test_spans_behind_one_token_see_that_token_alone(model: LatentModel) -> None:
    tree = new_tree([[65], [66]])
    engine = open_paged(model, tree)
    nodes = grow_and_check(engine, wishes_for(tree, tree.roots))
    assert engine.prefix.prefix(tree.roots)[0] == [[], []]
    assert tree.z_dim == Z_DIM and len(nodes) == 6


def test_the_model_is_as_it_was(model: LatentModel) -> None:
    from steer.latents.pull import Pull
    from tests.steer.tiny import write_guided

    def write() -> list[tuple[int, ...]]:
        pull = Pull(latent(3), torch.tensor([0.5, 1.0]))
        return [
            row.ids
            for row in write_guided(model, ["The", "Once"], pulls=[pull], spans=2, seeds=[1, 2], guidance_scale=1.4)
        ]

    base = model.peft.get_base_model()
    for fuse in (True, False):
        model.fuse = fuse
        try:
            before = write()
            attention = base.config._attn_implementation
            adapters = [list(layer.active_adapters) for layer in base.modules() if isinstance(layer, BaseTunerLayer)]
            flags = [p.requires_grad for p in model.parameters()]
            weights = {name: p.data_ptr() for name, p in model.named_parameters()}
            latents = model.encode(["a fox"])
            engine = open_paged(model, new_tree(), with_null=True)
            grown(engine, 2, 1.5, atol=3e-4)
            engine.base_logprobs([0], [[1, 2]])
            assert base.config._attn_implementation == attention != engine.prefix.module.config._attn_implementation
            assert write() == before
            assert torch.equal(model.encode(["a fox"]), latents)
            assert flags == [p.requires_grad for p in model.parameters()]
            assert weights == {name: p.data_ptr() for name, p in model.named_parameters()}
            now = [list(layer.active_adapters) for layer in base.modules() if isinstance(layer, BaseTunerLayer)]
            assert now == adapters
        finally:
            model.fuse = True


def test_weights_are_shared_and_not_copied(model: LatentModel) -> None:
    engine = open_paged(model, new_tree())
    engine.base_logprobs([0], [[1]])
    assert engine._base is not None
    own = {p.data_ptr() for p in [*model.parameters(), *model.fused("router").parameters()]}
    for lane in (engine.prefix, engine._base):
        assert {p.data_ptr() for p in lane.module.parameters()} <= own


@torch.no_grad()
def test_bfloat16_agrees_within_its_rounding(tiny_llama: object) -> None:
    narrow = sharpen(tiny_model(str(tiny_llama), dtype="bfloat16"))
    tree = new_tree()
    engine = open_paged(narrow, tree)
    nodes, _ = grow(engine, wishes_for(tree, tree.roots))
    wishes = wishes_for(tree, nodes[::4], children=2)
    seen = spy(engine)
    for row, node in enumerate(grow(engine, wishes)[0]):
        parts = [narrow.embed(torch.tensor([tree.context(node)]))]
        for n in tree.path(node):
            z = torch.from_numpy(tree.written_from[n][None].copy())
            parts += [narrow.soft(z if bool(z.any()) else None), narrow.embed(torch.tensor([tree.span(n)]))]
        wanted = narrow.role_logits(ROUTER, torch.cat(parts, dim=1))[0, -SPAN - 1 : -1].float()
        got = torch.stack([step[row] for step in seen])
        assert got.dtype == torch.float32 and (got - wanted).abs().max() < 0.1 * wanted.std()
