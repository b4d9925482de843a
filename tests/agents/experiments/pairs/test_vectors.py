"""The arm that steers by activations: fair to the others, each text its own pair's, nothing left in the model."""

from pathlib import Path
from typing import Any

import pytest

from agents.errors import ExperimentError
from agents.experiments.pairs.arms import ARMS
from agents.experiments.pairs.options import Options, VectorOptions
from agents.experiments.pairs.writing import Sample, Task
from steer.errors import GuidanceError
from steer.writing.activation import decoder_layers, unguided_path
from steer.writing.config import WritingConfig
from steer.writing.sampling import SamplingConfig
from tests.agents.experiments.kit import PAIRS, experiment


def write(model: Any, chosen: slice = slice(None), **options: Any) -> list[Sample]:
    pairs = PAIRS[chosen]
    seeds = [10 + PAIRS.index(pair) for pair in pairs]
    method, kind = ("vectors", VectorOptions) if options else ("unguided", Options)
    config = WritingConfig(spans=2, sampling=SamplingConfig(temperature=0.9), guidance_scale=1)
    return ARMS[method](Task(model, pairs, PAIRS, seeds, config), kind(**options))


def test_strength_zero_is_the_unguided_arm(model: Any) -> None:
    assert write(model, strength=0) == write(model)


def test_a_vector_moves_what_is_written_and_then_leaves(model: Any) -> None:
    unguided = write(model)
    layers = decoder_layers(unguided_path(model))
    before = [len(layer._forward_hooks) for layer in layers]
    moved = [write(model, strength=5, layer=layer) for layer in range(len(layers))]
    assert all(one != unguided for one in moved) and moved[0] != moved[1]
    assert write(model, strength=5) == moved[len(layers) // 2]
    assert write(model) == unguided and [len(layer._forward_hooks) for layer in layers] == before
    assert all(sample.tokens == len(sample.ids) and sample.encodes == 0 for sample in moved[0])


def test_a_text_depends_on_its_own_pair_alone(model: Any) -> None:
    together = write(model, strength=5)
    assert [write(model, slice(i, i + 1), strength=5)[0].text for i in range(len(PAIRS))] == [s.text for s in together]


def test_options(model: Any, tmp_path: Path) -> None:
    arm = {"name": "by vectors", "method": "vectors", "strength": 0.4, "layer": 1}
    assert experiment(tmp_path, arms=[arm]).arms[0].options == VectorOptions(strength=0.4, layer=1)
    with pytest.raises(ExperimentError, match="strength"):
        experiment(tmp_path, arms=[arm | {"strength": -1}])
    with pytest.raises(GuidanceError, match="no layer 9"):
        write(model, layer=9)
