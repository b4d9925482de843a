"""Which engine a base gets, and that the slow one is right."""

import logging
from collections.abc import Callable

import pytest
import torch

from steer.errors import UnsupportedBase
from steer.models.adapters import ROUTER
from steer.models.latent_model import LatentModel
from steer.search.engines.base import Engine, SpanRequest
from steer.search.engines.opening import open_engine, paging_problem
from steer.search.engines.prefill import PrefillEngine
from steer.search.tree import Tree
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from tests.steer.search.engine_kit import (
    NOT_PAGED,
    PAGED,
    Wish,
    drawn,
    grow,
    latent,
    new_tree,
    wanted_logits,
)
from tests.steer.tiny import SPAN, assert_near, forced_logits, marks_of

OPTIONS = {"sampling": SamplingConfig(temperature=0.9, top_p=1.0), "limits": Limits(may_end=False)}
REASONS = {
    "mistral_window": "layers of its own kind .DynamicSlidingWindowLayer",
    "gptj": "differs from its own by",
    "recurrent_gemma": "layers of its own kind .*LinearAttentionLayer",
}


def grow_and_check(engine: Engine, wishes: list[Wish], atol: float) -> list[int]:
    """Tokens and log-probabilities of children, against passes over their whole paths."""
    nodes, _ = grow(engine, wishes)
    for node, wish in zip(nodes, wishes, strict=True):
        wanted = wanted_logits(engine.model, engine.tree, node, wish.scale)
        wanted[:, [*marks_of(engine.model), engine.eos]] = -torch.inf
        ids, logprob = drawn(engine.tree, node, wanted, 0.9)
        assert engine.tree.span(node) == ids
        assert float(engine.tree.logprob[node]) == pytest.approx(logprob, abs=SPAN * atol)
    return nodes


@pytest.mark.parametrize("family", PAGED)
def test_families_that_are_paged(family: str, of_family: Callable[[str], LatentModel]) -> None:
    model = of_family(family)
    assert paging_problem(model) == ""
    for asked in (None, True):
        engine = open_engine(model, new_tree(), paged=asked, **OPTIONS)
        assert (engine.kind, engine.reason) == ("paged", "")


@pytest.mark.parametrize("scale", [1.0, 1.6], ids=["plain", "null-arm"])
@pytest.mark.parametrize("family", NOT_PAGED)
def test_others_are_written_correctly_and_slowly(
    family: str, scale: float, of_family: Callable[[str], LatentModel], caplog: pytest.LogCaptureFixture
) -> None:
    model = of_family(family)
    tree = new_tree()
    with caplog.at_level(logging.WARNING, "steer.search.engines.opening"):
        engine = open_engine(model, tree, with_null=scale != 1, **OPTIONS)
    assert engine.kind == "prefill"
    (record,) = (r for r in caplog.records if r.name == "steer.search.engines.opening")
    assert engine.reason and engine.reason in record.getMessage()
    nodes = grow_and_check(
        engine, [w for r in tree.roots for w in (Wish(r, 0, latent(r), scale), Wish(r, 1))], atol=5e-4
    )
    mixed = [Wish(nodes[0], 0, latent(9), scale), Wish(0, 2, latent(3), scale), Wish(nodes[3], 0), Wish(nodes[4], 0)]
    nodes = grow_and_check(engine, mixed, atol=5e-4)
    grow_and_check(engine, [Wish(nodes[0], 0, latent(8), scale), Wish(nodes[0], 1, latent(8)), Wish(0, 3)], atol=5e-4)
    span = [1, 2, 3]
    before = [*tree.context(nodes[0]), *tree.ids(nodes[0])]
    logprobs = forced_logits(model, None, before, [(None, span)])[0].log_softmax(1)
    wanted = logprobs[torch.arange(3), torch.tensor(span)].mean()
    assert_near(engine.base_logprobs([nodes[0]], [span])[0], wanted)
    # Rows of other lengths beside it change nothing.
    assert_near(engine.base_logprobs([1, nodes[0], nodes[1]], [[7] * SPAN, span, [9]])[1], wanted)


@pytest.mark.parametrize("family", NOT_PAGED)
def test_reasons_are_told(family: str, of_family: Callable[[str], LatentModel]) -> None:
    model = of_family(family)
    with pytest.raises(UnsupportedBase, match=REASONS[family]):
        open_engine(model, new_tree(), paged=True, **OPTIONS)


def test_pages_can_be_declined(model: LatentModel, caplog: pytest.LogCaptureFixture) -> None:
    engine = open_engine(model, new_tree(), paged=False, **OPTIONS)
    assert (engine.kind, engine.reason, caplog.text) == ("prefill", "asked for", "")


def test_both_engines_write_the_same(model: LatentModel) -> None:
    trees = [new_tree(), new_tree()]
    engines = [
        open_engine(model, t, paged=p, with_null=True, **OPTIONS) for t, p in zip(trees, (True, False), strict=True)
    ]
    wishes = [
        Wish(r, i, latent(r + i % 2) if i < 3 else None, 1.4 if i < 2 else 1.0) for r in range(4) for i in range(4)
    ]
    for at in (0, 4, 20):
        rows = [Wish(w.parent + at, w.index, w.z, w.scale) for w in wishes]
        draws = [grow(engine, rows)[1] for engine in engines]
        assert draws[0].spans == draws[1].spans
        assert_near(draws[0].logprobs, draws[1].logprobs, atol=2e-3)
    assert engines[1].forward_tokens > engines[0].forward_tokens


# BigVAE's layout ------------------------------------------------------------------------------------------------------


def test_bigvae_has_no_pages(minihf: LatentModel) -> None:
    assert "layout 'minihf'" in paging_problem(minihf)


def minihf_logits(model: LatentModel, tree: Tree, node: int, z: torch.Tensor | None) -> torch.Tensor:
    """`[context and spans before][z][span]`, or the bare base without the latent."""
    before = [*tree.context(node), *tree.ids(int(tree.parent[node]))]
    return forced_logits(model, None if z is None else ROUTER, before, [(z, tree.span(node))])[0]


@pytest.mark.parametrize("scale", [1.0, 1.5], ids=["plain", "null-arm"])
def test_bigvae_writes_as_its_layout_has_it(minihf: LatentModel, scale: float) -> None:
    tree = Tree(SPAN, minihf.latent_config.z_dim)
    for seed, context in enumerate(([5, 6, 7], [9], [8, 8, 8])):
        tree.add_root(context, seed=seed, horizon=4)
    engine = open_engine(minihf, tree, with_null=scale != 1, **OPTIONS)
    assert isinstance(engine, PrefillEngine)
    parents = tree.roots
    for _ in range(3):
        zs = torch.randn(2 * len(parents), tree.z_dim, generator=torch.Generator().manual_seed(tree.size))
        wishes = [
            Wish(p, i, zs[2 * r] if i == 0 else None, scale if i == 0 else 1.0)
            for r, p in enumerate(parents)
            for i in (0, 1)
        ]
        nodes, _ = grow(engine, wishes)
        for node, wish in zip(nodes, wishes, strict=True):
            wanted = minihf_logits(minihf, tree, node, wish.z)
            if wish.scale != 1:
                null = minihf_logits(minihf, tree, node, None)
                wanted = null + wish.scale * (wanted - null)
            wanted[:, [*marks_of(engine.model), engine.eos]] = -torch.inf
            ids, logprob = drawn(tree, node, wanted, 0.9)
            assert tree.span(node) == ids
            assert float(tree.logprob[node]) == pytest.approx(logprob, abs=5e-3)
        parents = nodes[:2]
    draft = engine.write(SpanRequest([*parents], [1, 2]), draft=True)
    plain = engine.write(SpanRequest([*parents], [1, 2]))
    assert draft.spans == plain.spans
