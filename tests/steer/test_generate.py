"""Writing in one call: the same bytes as the functions behind it, whatever goals and contexts come as."""

from pathlib import Path

import pytest
import torch

from steer import LatentModel, Pull, SteerError, make_schedule, write_guided
from steer.latents.schedules import ScheduleConfig
from steer.search.budget import Budget
from steer.search.searched import SearchResult, write_searched
from steer.writing.guided import Written
from tests.steer.tiny import tiny_model

CONTEXT, GOAL, RAIN = "Tom went", "A coin.", "Rain."


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    return tiny_model(tiny_llama)


def by_hand(model: LatentModel, *, avoid: bool = False, spans: int = 3) -> Written:
    pulls = [Pull(model.encode(GOAL)[0], make_schedule("bridge", spans))]
    if avoid:
        pulls.append(Pull(model.encode(RAIN)[0], 1.0, avoid=True))
    return write_guided(model, [CONTEXT], pulls=pulls, seeds=[5], spans=spans)[0]


def test_a_line_writes_what_five_objects_did(model: LatentModel):
    written = model.write(CONTEXT, toward=GOAL, spans=3, seed=5)
    assert isinstance(written, Written)
    assert written.ids == by_hand(model).ids
    assert written.ids != model.write(CONTEXT, spans=3, seed=5).ids
    away = model.write(CONTEXT, toward=GOAL, avoid=RAIN, spans=3, seed=5)
    assert away.ids == by_hand(model, avoid=True).ids


@pytest.mark.parametrize("kind", ["list", "array", "tensor", "matrix", "pull", "model.pull", "texts"])
def test_goals_come_as_what_is_at_hand(model: LatentModel, kind: str):
    z = model.encode(GOAL)
    goal = {
        "list": z[0].tolist(),
        "array": z[0].numpy(),
        "tensor": z[0],
        "matrix": z,
        "pull": Pull(z[0], make_schedule("bridge", 3)),
        "model.pull": model.pull(GOAL, spans=3),
        "texts": [GOAL],
    }[kind]
    assert model.write(CONTEXT, toward=goal, spans=3, seed=5).ids == by_hand(model).ids


def test_a_list_of_contexts_gives_a_list(model: LatentModel):
    rows = model.write([CONTEXT, "Mia"], toward=model.encode([GOAL, RAIN]), spans=2, seed=[5, 6])
    assert [row.ids for row in rows] == [
        model.write(CONTEXT, toward=GOAL, spans=2, seed=5).ids,
        model.write(model.to_ids("Mia"), toward=RAIN, spans=2, seed=6).ids,
    ]
    assert len(model.write([CONTEXT], spans=1)) == 1


@pytest.mark.parametrize("several", [False, True])
def test_a_stream_gives_the_spans_of_write(model: LatentModel, several: bool):
    context = [CONTEXT, "Mia"] if several else CONTEXT
    streamed = list(model.stream(context, toward=GOAL, avoid=RAIN, spans=3, seed=5))
    written = model.write(context, toward=GOAL, avoid=RAIN, spans=3, seed=5)
    if several:
        assert [list(spans) for spans in zip(*streamed, strict=True)] == [list(row.spans) for row in written]
    else:
        assert streamed == list(written.spans)


def test_a_stream_writes_no_further_than_it_is_read(model: LatentModel, monkeypatch: pytest.MonkeyPatch):
    from steer.writing.writer import Writer

    calls, write = [], Writer.write
    monkeypatch.setattr(Writer, "write", lambda self, *args, **kw: calls.append(1) or write(self, *args, **kw))
    first = next(model.stream(CONTEXT, spans=4, seed=5))
    assert len(calls) == 1
    assert first == model.write(CONTEXT, spans=4, seed=5).spans[0]


def test_searches_are_handed_over(model: LatentModel):
    found = model.write(CONTEXT, toward=GOAL, method="guided-search", spans=2, budget=4, policy="best_of_n", seed=5)
    assert isinstance(found, SearchResult)
    budget = Budget(tokens=4 * 2 * model.span_tokens)
    [wanted] = write_searched(
        model, [CONTEXT], terminals=model.encode(GOAL), spans=2, budget=budget, policy="best_of_n", seeds=[5]
    )
    assert (found.ids, found.value) == (wanted.ids, wanted.value)
    plain = model.write(CONTEXT, toward=GOAL, method="search", spans=2, budget=budget, policy="best_of_n", seed=5)
    assert not plain.latents.any()
    assert found.latents.any()


def test_pulls_of_a_model(model: LatentModel):
    z = model.encode(GOAL)[0]
    assert torch.equal(model.pull(GOAL).latent, z)
    assert torch.equal(model.pull(GOAL, spans=4).weights, make_schedule("bridge", 4))
    assert torch.equal(model.pull(z, ScheduleConfig("cosine"), spans=3).weights, make_schedule("cosine", 3))
    assert model.pull(GOAL, 0.5).weights[7] == 0.5
    away = model.pull(GOAL, avoid=True)
    assert away.avoid
    assert bool((away.weights == 1).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": None}, "expected a context, or a list of them; got None"),
        ({"context": 3}, "got 3 of int"),
        ({"context": [None]}, "context 0 must be text"),
        ({"toward": 0.5}, r"latent is a float \[z\]"),
        ({"toward": [None]}, "a goal is None"),
        ({"toward": ""}, "is empty"),
        ({"toward": "word " * 50}, "does not fit a span"),
        ({"toward": [1.0, 2.0]}, "does not fit 1 rows of width 6"),
        ({"method": "mcts"}, "method='mcts' is unknown; expected one of guided, search, guided-search"),
        ({"colour": 1}, "there is no option colour"),
        ({"budget": 4}, "there is no option budget"),
        ({"spans": 0}, "spans must be an int of at least 1"),
        ({"spans": "six"}, "spans must be an int"),
        ({"guidance_scale": -1}, r"guidance_scale lies in \[0, 20\]"),
        ({"guidance_scale": "strong"}, "guidance_scale must be a number"),
        ({"sampling": {"temperature": 0.5}}, "sampling must be a SamplingConfig; got .* of dict"),
        ({"schedule": "bridge"}, "schedule must be a ScheduleConfig"),
        ({"seed": "abc"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"method": "search", "budget": "much"}, "needs a budget"),
        ({"method": "search", "toward": [GOAL, RAIN]}, "a search looks for one goal; got 2"),
    ],
)
def test_refusals_say_what_came(model: LatentModel, options: dict, message: str):
    with pytest.raises(SteerError, match=message):
        model.write(**{"context": CONTEXT, "toward": GOAL, "spans": 2, "seed": 5, **options})
