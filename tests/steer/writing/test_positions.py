"""Bases whose positions end: known by their tables, and refused before anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, OPTConfig, PretrainedConfig

from steer.errors import TextError
from steer.models.latent_model import LatentModel
from steer.rewards import Rewards
from steer.search import Budget, SpanEnvironment, Tree, write_searched
from steer.search.action import Action, Aim
from steer.search.engines.opening import open_engine
from steer.writing.context import check_positions, position_limit
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import open_writer
from tests.steer.families import FAMILIES, make_base
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import SOFT, SPAN, Z_DIM, tiny_model, write_guided

LIMIT = 128
WITH_TABLE = ("gpt2", "gptj", "opt")
CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    **FAMILIES,
    "opt": lambda **k: OPTConfig(
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LIMIT,
        word_embed_proj_dim=32,
        **k,
    ),
}
# A span stands behind its soft tokens, and nothing is predicted from the last token of all.
SPANS = 9
FITTING = LIMIT + 1 - SPANS * (SOFT + SPAN)
MESSAGE = (
    rf"a context of {FITTING + 1} tokens and {SPANS} spans of {SPAN} tokens need {LIMIT + 1} positions .* table of "
    rf"{LIMIT}; write at most {SPANS - 1} or cut the context to its last {FITTING} tokens or take a base that has more"
)


@pytest.fixture(scope="module")
def gpt2(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    return tiny_model(make_base("gpt2", tiny_llama, tmp_path_factory.mktemp("gpt2")), max_context=100)


def test_fitting_leaves_room_for_a_context() -> None:
    assert 0 < FITTING < 100


@pytest.mark.parametrize("family", CONFIGS)
def test_tables_of_positions_are_told_from_positions_that_are_computed(family: str) -> None:
    base = AutoModelForCausalLM.from_config(CONFIGS[family](vocab_size=LIMIT))
    assert position_limit(base) == (LIMIT if family in WITH_TABLE else None)


def test_what_just_fits_is_written_to_the_last_token(gpt2: LatentModel) -> None:
    context = [65] * FITTING
    for scale in (1.0, 1.5):
        writer = open_writer(gpt2, [context, [66]], seeds=[1, 2], spans=SPANS, with_null=scale != 1)
        for _ in range(SPANS):
            writer.write(writer.draft(), guidance_scale=scale)
        assert all(len(writer.ids(row)) == SPANS * SPAN or writer.ended[row] for row in range(2))
    budget = Budget(nodes=SPANS)
    found = write_searched(gpt2, [context], spans=SPANS, policy="best_of_n", budget=budget, rewards={"fluency": 1.0})
    assert found[0].finished


def test_what_does_not_fit_is_refused_before_anything_is_written(gpt2: LatentModel) -> None:
    context = [65] * (FITTING + 1)
    with pytest.raises(TextError, match=MESSAGE):
        open_writer(gpt2, [[66], context], seeds=[1, 2], spans=SPANS)
    with pytest.raises(TextError, match=MESSAGE):
        write_guided(gpt2, [context], spans=SPANS)
    with pytest.raises(TextError, match=MESSAGE):
        write_searched(gpt2, [[66], context], spans=SPANS, budget=Budget(nodes=20))


def test_the_token_of_an_empty_context_takes_a_position(gpt2: LatentModel) -> None:
    spans = LIMIT // (SPAN + gpt2.latent_config.soft_tokens) + 1
    for context in ("", "a"):
        with pytest.raises(TextError, match="a context of 1 tokens and"):
            write_guided(gpt2, [context], spans=spans)


@pytest.mark.parametrize("paged", [True, False])
def test_each_root_is_held_against_its_own_horizon(gpt2: LatentModel, paged: bool) -> None:
    def world(horizon: int) -> SpanEnvironment:
        tree = Tree(SPAN, Z_DIM, ("fluency",))
        tree.add_root([65], seed=0, horizon=SPANS)
        tree.add_root([65] * (FITTING + 1), seed=1, horizon=horizon)
        engine = open_engine(gpt2, tree, paged=paged, sampling=SamplingConfig())
        return SpanEnvironment(engine, Rewards({"fluency": 1.0}, gpt2), [Action()], [Aim(), Aim()])

    world(SPANS - 1)
    with pytest.raises(TextError, match=MESSAGE):
        world(SPANS)


def test_advice_is_only_what_helps(gpt2: LatentModel) -> None:
    with pytest.raises(TextError, match=f"table of {LIMIT}; write at most 2 or take"):
        check_positions(gpt2, [65] * 100, 50)
    with pytest.raises(TextError, match=f"table of {LIMIT}; take"):
        check_positions(gpt2, [65] * 125, 50)
    check_positions(gpt2, [65] * 100, 2)


def test_positions_that_are_computed_have_no_end(tiny_llama: Path) -> None:
    check_positions(tiny_model(tiny_llama), [65] * 10_000, 1000)


def test_bigvae_keeps_one_latent_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, checkpoint = make_minihf_folder(tmp_path, seed=7)
    model = LatentModel.from_minihf(checkpoint, base, span_tokens=SPAN, device="cpu")
    monkeypatch.setattr("steer.writing.context.position_limit", lambda base: LIMIT)
    most = LIMIT + 1 - model.latent_config.soft_tokens - 5 * SPAN
    check_positions(model, [65] * most, 5)
    with pytest.raises(TextError, match=f"need {LIMIT + 1} positions .* cut the context to its last {most} tokens"):
        check_positions(model, [65] * (most + 1), 5)
