"""Goldens: what is written today, token by token, so that a change of the code shows whether it changes any text.

Each golden is a function from `Models` to plain JSON data; the test compares it with `tests/golden/NAME.json`. Token
ids, texts and whole numbers must be the same, other numbers within 1e-5. A change that is meant to write something
else renews the files, and the difference is read before it is committed:

    STEER_RENEW_GOLDENS=1 python -m pytest tests/test_goldens.py [-k NAME]

All models run in float32 on the CPU. Nothing depends on the clock or on folders. Another kind of CPU may round
otherwise, and a token that is drawn on a knife's edge may then differ.
"""

import functools
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from agents.experiments.load import load_experiment
from agents.experiments.run import run_experiment
from agents.log.events import TurnEvent
from agents.scenarios.loading import load_scenario, packaged_scenarios
from agents.scenarios.schema import Scenario
from agents.simulation.simulation import run_scenario
from steer.evaluation.decoding import cut_spans, decode, decode_stage_one, encoder_embed
from steer.evaluation.reconstruction import reconstruction_figures
from steer.latents.mixing import mix
from steer.latents.pull import Pull
from steer.latents.schedules import make_schedule
from steer.models.build import fresh_model
from steer.models.latent_model import LatentModel
from steer.search.action import Action
from steer.search.budget import Budget
from steer.search.config import guided_menu
from steer.search.policies import POLICIES
from steer.search.searched import write_searched
from steer.writing.guided import write_guided
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig
from tests.agents.experiments.kit import Letters
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import SPAN, sharpen, tiny_model

FOLDER = Path(__file__).parent / "golden"
RENEW = bool(os.environ.get("STEER_RENEW_GOLDENS"))
TOLERANCE = 1e-5

# Plain sampling and nothing that may not be written, as the first goldens had it.
FREE: dict[str, Any] = {"sampling": SamplingConfig(temperature=0.8, top_p=1.0), "limits": Limits(plays=True)}
PLAIN: dict[str, Any] = {**FREE, "guidance_scale": 1.0}

CONTEXTS = [
    "A fox sat in the snow.",
    "Once upon a time there was a girl named Lily. She had a red ball and a small dog, and they played in the park.",
    "Tom and his dog went to the lake.",
]
TERMINALS = [
    "The fox shared his bread with the hungry bird.",
    "Lily found her red ball under the big tree.",
    "They found a gold coin in the sand.",
]
AVOIDED = "It was raining and everyone was sad."
STORY = (
    "Once upon a time there was a little bear. He was hungry and could not find any honey. He walked and walked until "
    "he met a kind bee. The bee said that he could have some honey if he was nice. The bear said thank you and ate it "
    "all. Then they sat down in the sun together and were good friends for ever after. "
)

# Models ---------------------------------------------------------------------------------------------------------------


class Models:
    """The models that are written with, each made once, and folders for runs."""

    def __init__(self, tiny_base: Path, make_folder: Callable[[str], Path]) -> None:
        self.tiny_base = tiny_base
        self.folder = make_folder

    @functools.cached_property
    def packaged(self) -> LatentModel:
        return LatentModel.from_pretrained("llama-fable-6m", device="cpu", dtype="float32")

    @functools.cached_property
    def tiny(self) -> LatentModel:
        """A random one of the interleaved layout whose logits are far from even."""
        return sharpen(tiny_model(self.tiny_base))

    @functools.cached_property
    def player(self) -> LatentModel:
        """A random one whose spans are bytes enough for a turn of a scenario."""
        sizes: Any = {"span_tokens": 8, "z_dim": 8, "soft_tokens": 1, "rank": 4, "alpha": 4, "max_context": 48}
        model = fresh_model(self.tiny_base, name="tiny", dtype="float32", device="cpu", **sizes)
        model.head.w_d.weight.data.mul_(20)
        return sharpen(model)

    @functools.cached_property
    def minihf(self) -> LatentModel:
        """A random one of MiniHF's layout."""
        base, checkpoint = make_minihf_folder(self.folder("minihf"), seed=7)
        return LatentModel.from_minihf(checkpoint, base, span_tokens=SPAN, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def models(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tiny_llama, tmp_path_factory.mktemp)


def latents(model: LatentModel, count: int) -> Tensor:
    """Latents that no encoder made, as long as encoded ones mostly are."""
    return torch.randn(count, model.latent_config.z_dim, generator=torch.Generator().manual_seed(count))


# Writing --------------------------------------------------------------------------------------------------------------


def guided_cases(
    model: LatentModel, wanted: Tensor, avoided: Tensor, *, spans: int, names: Sequence[str] = (), head: bool = False
) -> dict[str, Any]:
    """What each way of writing, or each of those named, writes behind all contexts."""
    weights = make_schedule("bridge", spans)
    pull = Pull(wanted, weights)
    away = Pull(avoided, make_schedule("constant", spans, start=0.5), avoid=True)
    other = Pull(avoided, make_schedule("linear", spans, end=0.3))
    by_row = Pull(wanted, torch.stack([weights, torch.zeros(spans), weights.flip(0)]))
    careful = SamplingConfig(temperature=0.9, top_k=40, top_p=0.95, min_p=0.02, repetition_penalty=1.2)
    limits = Limits(may_end=False, whole_words=True, plays=False)
    cases: dict[str, dict[str, Any]] = {
        "unguided": {},
        "bridge": {"pulls": [pull]},
        "bridge, one seed": {"pulls": [pull], "seeds": 7},
        "cfg": {"pulls": [pull], "guidance_scale": 1.5},
        "cfg, scheduled": {"pulls": [pull], "guidance_scale": torch.linspace(1.0, 2.0, spans)},
        "avoid": {"pulls": [away]},
        "bridge, avoid and cfg": {"pulls": [pull, away], "guidance_scale": 1.5},
        "weights by row, cfg": {"pulls": [by_row], "guidance_scale": 1.5},
        "slerp, draft's norm": {"pulls": [pull], "mix": functools.partial(mix, method="slerp", rescale="draft")},
        "two pulls, no rescale": {"pulls": [pull, other], "mix": functools.partial(mix, rescale="none")},
        "limits": {"pulls": [pull], "limits": limits},
        "repetition penalty": {"pulls": [pull], "sampling": careful},
        "limits and repetition penalty": {"pulls": [pull], "limits": limits, "sampling": careful},
        "greedy": {"pulls": [pull], "sampling": SamplingConfig(temperature=0.0, top_p=1.0)},
    }
    if head:
        cases["drafts by head"] = {"pulls": [pull], "drafts": "head"}
    found = {}
    for name in names or cases:
        how: dict[str, Any] = {"spans": spans, "seeds": [1, 2, 3], **PLAIN, **cases[name]}
        written = write_guided(model, CONTEXTS, **how)
        found[name] = {
            "ids": [row.ids for row in written],
            "texts": [row.text for row in written],
            "ended": [row.ended for row in written],
            "context": [len(row.context) for row in written],
            "norms": [row.latents.norm(dim=1).tolist() for row in written],
        }
    return found


def guided_packaged(models: Models) -> Any:
    model = models.packaged
    names = (
        "unguided",
        "bridge",
        "cfg",
        "cfg, scheduled",
        "avoid",
        "limits and repetition penalty",
        "drafts by head",
    )
    wanted, avoided = model.encode(TERMINALS), model.encode(AVOIDED)[0]
    return guided_cases(model, wanted, avoided, spans=2, names=names, head=True)


def guided_tiny(models: Models) -> Any:
    *wanted, avoided = latents(models.tiny, 4)
    return guided_cases(models.tiny, torch.stack(wanted), avoided, spans=4)


def guided_minihf(models: Models) -> Any:
    *wanted, avoided = latents(models.minihf, 4)
    names = (
        "unguided",
        "bridge",
        "cfg",
        "cfg, scheduled",
        "bridge, avoid and cfg",
        "weights by row, cfg",
        "limits and repetition penalty",
    )
    return guided_cases(models.minihf, torch.stack(wanted), avoided, spans=3, names=names)


# Search ---------------------------------------------------------------------------------------------------------------


def searched(
    model: LatentModel, terminals: Any, *, policies: Sequence[str] = tuple(POLICIES), **options: Any
) -> dict[str, Any]:
    """What each policy finds behind two contexts, and the whole tree that it looked at."""
    settings = {"spans": 3, "budget": Budget(nodes=12), "seeds": [5, 6], "menu": guided_menu(1.5), **FREE, **options}
    found = {}
    for policy in policies:
        results = write_searched(model, CONTEXTS[:2], terminals=terminals, policy=policy, **settings)
        tree = results[0].tree
        found[policy] = {
            "ids": [r.ids for r in results],
            "status": [r.status for r in results],
            "finished": [r.finished for r in results],
            "value": [r.value for r in results],
            "tokens": [r.spent.tokens for r in results],
            "nodes": [r.spent.nodes for r in results],
            "tree": {
                "parent": tree.parent[: tree.size].tolist(),
                "action": tree.action[: tree.size].tolist(),
                "visits": tree.visits[: tree.size].tolist(),
                "tokens": [tree.span(node) for node in range(tree.size)],
            },
        }
    return found


def search_paged(models: Models) -> Any:
    return searched(models.tiny, latents(models.tiny, 2), paged=True, limits=Limits(may_end=False, plays=True))


def search_prefill(models: Models) -> Any:
    return searched(models.tiny, latents(models.tiny, 2), paged=False, limits=Limits(may_end=False, plays=True))


def search_minihf(models: Models) -> Any:
    return searched(models.minihf, latents(models.minihf, 2), paged=False, spans=2, budget=Budget(nodes=6))


def search_unguided(models: Models) -> Any:
    """Without pulls, by what the texts come to, and with a budget of tokens."""
    budget = Budget(tokens=12 * models.tiny.span_tokens)
    return searched(models.tiny, latents(models.tiny, 2), menu=(Action(),), budget=budget)


def search_packaged(models: Models) -> Any:
    """By default; and with drafts by head and all that a search may be asked for besides."""
    model, settings = models.packaged, {"spans": 2, "budget": Budget(nodes=4)}
    more = {
        "drafts": "head",
        "avoid": model.encode([AVOIDED]),
        "deadline": 3,
        "limits": Limits(whole_words=True, plays=True),
        "rewards": {"similarity": 1.0, "reach": 0.5, "fluency": 0.3, "repetition": -0.5, "avoid": -0.5},
        "sampling": SamplingConfig(temperature=0.9, top_p=1.0, repetition_penalty=1.2),
    }
    return {
        "plain": searched(model, TERMINALS[:2], policies=["mcts"], **settings),
        "much asked for": searched(model, TERMINALS[:2], policies=["gumbel"], **settings, **more),
    }


# Latents --------------------------------------------------------------------------------------------------------------


def encode(models: Models) -> Any:
    """The first numbers of latents."""
    packaged, tiny = models.packaged, models.tiny
    byte_rows = [[65, 66, 67], [97, 98, 99, 100, 101, 102, 103, 104], [32, 33]]
    return {
        "packaged": packaged.encode(TERMINALS)[:, :8].tolist(),
        "long": packaged.encode([STORY], long="mean")[:, :8].tolist(),
        "tiny": tiny.encode_ids(byte_rows).tolist(),
        "minihf": models.minihf.encode_ids(byte_rows)[:, :8].tolist(),
    }


def decoding(models: Models) -> Any:
    """The likeliest spans of latents, without a context and behind one, and how well a model finds spans again."""
    packaged, minihf = models.packaged, models.minihf
    z, foreign = packaged.encode(TERMINALS), latents(minihf, 3)
    spans = [span for row in cut_spans(packaged, [STORY, " ".join(CONTEXTS + TERMINALS)]) for span in row]
    return {
        "packaged, alone": decode(packaged, z),
        "packaged, in context": decode(packaged, z, [packaged.to_ids(text) for text in CONTEXTS]),
        "minihf, alone": decode(minihf, foreign),
        "minihf, in context": decode(minihf, foreign, [minihf.to_ids(text) for text in CONTEXTS]),
        "minihf, stage one": decode_stage_one(minihf, foreign),
        "reconstruction": reconstruction_figures(packaged, spans, encoder_embed(packaged)),
    }


# Scenarios ------------------------------------------------------------------------------------------------------------


def played(models: Models, model: LatentModel, scenario: Scenario, **options: Any) -> Any:
    """The turns of a run."""
    turns: list[dict[str, Any]] = []

    def note(event: Any, arm: str) -> None:
        if isinstance(event, TurnEvent):
            plan = event.plan
            turns.append(
                {
                    "arm": arm,
                    "character": event.character,
                    "cue": event.cue,
                    "text": event.text,
                    "ids": event.ids,
                    "seed": event.seed,
                    "tokens": event.tokens,
                    "context": event.context_sha256,
                    "visible": event.visible_sha256,
                    "goal": plan.goal,
                    "weights": plan.weights,
                    "recalled": [memory.turn for memory in plan.memories],
                    "actions": plan.search.actions if plan.search else None,
                    "similarities": event.similarities,
                }
            )

    run_scenario(scenario, model, models.folder("run") / "run", on_event=note, **options)
    return turns


def packaged_scenario(name: str) -> Scenario:
    return load_scenario(packaged_scenarios()[name])


def scenario_guided(models: Models) -> Any:
    return played(models, models.packaged, packaged_scenario("lost_toy"), seed=3, turns=3, baseline=False)


def scenario_play(models: Models) -> Any:
    """A script, whose characters have voices."""
    return played(models, models.packaged, packaged_scenario("hungry_bird"), seed=3, turns=2, baseline=False)


def scenario_searched(models: Models) -> Any:
    return played(models, models.packaged, packaged_scenario("windy_day"), seed=3, turns=2, baseline=False)


def scenario_recalled(models: Models) -> Any:
    """A tiny model with a memory, and its unguided baseline; the context does not hold all of the run."""
    data = {
        "id": "tiny",
        "opening": "The sun was up.",
        "turns": 6,
        "spans_per_turn": 2,
        "seed": 5,
        "characters": [
            {
                "id": "ann",
                "name": "Ann",
                "voice": ["Oh my!"],
                "goals": [
                    {"id": "sea", "text": "A boat.", "by_turn": 3},
                    {"id": "wet", "kind": "avoid", "text": "Rain.", "weight": 0.5},
                ],
            },
            {"id": "bob", "name": "Bob", "goals": [{"id": "eat", "text": "Cake!"}]},
        ],
        "planner": {"guidance_scale": 1.5, "reached": 0.9, "memory": {}},
        "sampling": {"temperature": 0.9, "top_p": 1.0},
    }
    return played(models, models.player, Scenario.model_validate(data))


# Experiments ----------------------------------------------------------------------------------------------------------

CLOCK = ("seconds", "tokens_per_second")


def experiment_pairs(models: Models) -> Any:
    """All samples, and the table, of an experiment over pairs."""
    ends = ["A bee.", "My cat.", "The sea.", "A moon."]
    pairs = [{"id": f"p{i}", "context": f"Once upon a {i}", "terminal": end} for i, end in enumerate(ends)]
    folder = models.folder("pairs")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    data = {
        "id": "small",
        "pairs": {"file": "pairs.jsonl"},
        "spans": 2,
        "chunk": 3,
        "seeds": [0, 1],
        "sampling": {"temperature": 0.9},
        "arms": [
            {"name": "plain", "method": "unguided"},
            {"name": "fixed", "method": "fixed", "start": 0.4},
            {"name": "pulled", "method": "annealed", "guidance_scale": 1.5},
            {"name": "best", "method": "guided-search", "policy": "best_of_n", "budget": 2},
        ],
    }
    results = run_experiment(
        load_experiment(yaml_file(folder, data)), folder / "run", lambda: models.tiny, open_judge=Letters
    ).results
    samples = [json.loads(line) for line in (folder / "run" / "samples.jsonl").read_text("utf-8").splitlines()]
    return {
        "samples": [[s["arm"], s["seed"], s["pair"], s["tokens"], s["ids"]] for s in samples],
        "table": [
            {"arm": row.arm, "samples": row.items * len(results.seeds), "measures": estimates(row.measures)}
            for row in results.rows
        ],
        "tests": significance(results.tests),
    }


def experiment_scenarios(models: Models) -> Any:
    """All turns, and the table, of an experiment over scenarios."""
    folder = models.folder("scenarios")
    scenarios = {
        "agree-sea": ("The sun was up.", [("ann", "A bee."), ("bob", "A bee.")], 2),
        "against-hill": ("It was cold.", [("cat", "My cat."), ("dan", "Red ox.")], 3),
    }
    for name, (opening, goals, turns) in scenarios.items():
        characters = [{"id": who, "name": who.title(), "goals": [{"id": "wish", "text": text}]} for who, text in goals]
        scenario = {"id": name, "opening": opening, "turns": turns, "spans_per_turn": 1, "characters": characters}
        yaml_file(folder, scenario | {"sampling": {"temperature": 0.9}}, f"{name}.yaml")
    data = {
        "id": "small",
        "scenarios": [f"{name}.yaml" for name in scenarios],
        "seeds": [1, 2],
        "arms": [
            {"name": "plain", "planner": {"method": "unguided"}},
            {"name": "pulled", "planner": {"method": "annealed", "guidance_scale": 1.5}},
        ],
    }
    results = run_experiment(
        load_experiment(yaml_file(folder, data)), folder / "run", lambda: models.tiny, open_judge=Letters
    ).results
    samples = [json.loads(line) for line in (folder / "run" / "samples.jsonl").read_text("utf-8").splitlines()]
    return {
        "samples": [[s["arm"], s["scenario"], s["seed"], [t["text"] for t in s["turns"]]] for s in samples],
        "threshold": results.facts["threshold"],
        "table": [
            {
                "arm": row.arm,
                "relation": row.group,
                "role": row.role,
                "scenarios": row.items,
                "measures": estimates(row.measures),
            }
            for row in results.rows
        ],
        "tests": significance(results.tests),
    }


def yaml_file(folder: Path, data: Mapping[str, Any], name: str = "experiment.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def estimates(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, interval and number of pairs by measure, without those that go by the clock."""
    return {name: [e.mean, e.low, e.high, e.pairs] for name, e in measures.items() if name not in CLOCK}


def significance(found: Sequence[Any]) -> dict[str, Any]:
    """Difference, p and adjusted p of each test, without those that go by the clock."""
    kept = [t for t in found if t.measure not in CLOCK]
    return {
        f"{t.measure}: {t.first} - {t.second}": [t.comparison.difference.mean, t.comparison.p, t.p_holm] for t in kept
    }


# Comparing ------------------------------------------------------------------------------------------------------------

GOLDENS: dict[str, Callable[[Models], Any]] = {
    make.__name__: make
    for make in (
        encode,
        decoding,
        guided_packaged,
        guided_tiny,
        guided_minihf,
        search_paged,
        search_prefill,
        search_minihf,
        search_unguided,
        search_packaged,
        scenario_guided,
        scenario_play,
        scenario_searched,
        scenario_recalled,
        experiment_pairs,
        experiment_scenarios,
    )
}


@pytest.mark.parametrize("name", GOLDENS)
def test_what_was_written_is_written_still(name: str, models: Models) -> None:
    path, actual = FOLDER / f"{name}.json", plain(GOLDENS[name](models))
    if RENEW:
        path.write_text(compact(actual), encoding="utf-8")
    found = list(differences(actual, json.loads(path.read_text(encoding="utf-8"))))
    assert not found, f"{len(found)} differences from {path.name}:\n" + "\n".join(found[:12])


def test_both_engines_search_alike() -> None:
    paged, prefill = (json.loads((FOLDER / f"search_{kind}.json").read_text("utf-8")) for kind in ("paged", "prefill"))
    assert paged == prefill


def test_every_file_has_its_golden() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(GOLDENS)


def plain(value: Any) -> Any:
    """As JSON gives it back: lists, numbers of six digits, null for what is not finite."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def compact(value: Any) -> str:
    """JSON with a row of numbers on one line."""
    text = json.dumps(value, indent=1)
    return (
        re.sub(r"\[[^\[\]{}\"]*\]", lambda row: re.sub(r"\s+", " ", row[0]).replace("[ ", "[").replace(" ]", "]"), text)
        + "\n"
    )


def differences(actual: Any, wanted: Any, where: str = "") -> list[str]:
    """What differs, and where; floats may, by `TOLERANCE`."""
    if isinstance(actual, dict) and isinstance(wanted, dict):
        if actual.keys() != wanted.keys():
            return [f"{where}: keys {sorted(actual.keys() ^ wanted.keys())} on one side alone"]
        return [d for key in wanted for d in differences(actual[key], wanted[key], f"{where}/{key}")]
    if isinstance(actual, list) and isinstance(wanted, list) and len(actual) == len(wanted):
        if all(isinstance(x, int) for x in [*actual, *wanted]):
            return [] if actual == wanted else [f"{where}: {actual} came, expected {wanted}"]
        return [
            d for i, (a, w) in enumerate(zip(actual, wanted, strict=True)) for d in differences(a, w, f"{where}/{i}")
        ]
    if isinstance(actual, float) and isinstance(wanted, float | int):
        return (
            []
            if math.isclose(actual, wanted, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
            else [f"{where}: {actual} came, expected {wanted}"]
        )
    return [] if actual == wanted else [f"{where}: {actual!r} came, expected {wanted!r}"]
