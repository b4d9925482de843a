"""Thresholds of what counts as told: few wrong ones pass, and no pair that lets as few pass finds more."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from steer.data.passages import Passages
from steer.evaluation.told import draw_signs, told_figures
from steer.heads.reach import ReachConfig
from steer.training.heads.arrival import SLACK, calibrate_told, middling_telling


class Head:
    """A stand-in for a reach head: a noisy view of whether two latents share their first four numbers."""

    def __init__(self, config: ReachConfig, noise: float = 0.3) -> None:
        self.config, self.noise = config, noise

    def told(self, states: torch.Tensor, terminals: torch.Tensor) -> torch.Tensor:
        same = torch.exp(-(states - terminals)[:, :4].square().sum(1))
        blur = torch.sin(1e4 * (states + 3 * terminals).sum(1))  # noise that depends on the pair alone
        return (same + self.noise * blur).clamp(0, 1)


def stories(count: int, seed: int = 0) -> Passages:
    """Three spans of ten tokens per story, and in each a sentence whose latent is like the span's."""
    rng = np.random.default_rng(seed)
    latents, story, begin, end, span = [], [], [], [], []
    for number, place in itertools.product(range(count), range(3)):
        content = rng.normal(size=8)
        for whole in (True, False):
            latents.append(content if whole else content + 0.3 * rng.normal(size=8))
            story.append(number)
            begin.append(10 * place + (0 if whole else 2))
            end.append(10 * place + (10 if whole else 8))
            span.append(whole)
    rivals = np.array([[(n + k) % count for k in range(1, 9)] for n in range(count)])
    table = torch.tensor(np.array(latents), dtype=torch.float32)
    return Passages(table, np.array(story), np.array(begin), np.array(end), np.array(span), rivals, 10)


def head(**changes: Any) -> Any:
    return Head(ReachConfig(encoder_id="e", z_dim=8, **changes))


def test_a_middling_telling_is_passed_by_half_of_them() -> None:
    passages = stories(60)
    middle = middling_telling(head(), passages, count=3000, seed=2)
    assert middle is not None and draw_signs(head(), passages, 3000, 3)["told"].pass_share(middle, -1) == pytest.approx(
        0.5, abs=0.05
    )
    spans = {name: getattr(passages, name)[passages.span] for name in ("latents", "story", "begin", "end", "span")}
    assert middling_telling(head(), Passages(**spans, rivals=passages.rivals, span_tokens=10)) is None


@pytest.mark.parametrize("alarms", [0.2, 0.02, 0.001])
def test_few_pass_and_nothing_else_finds_more(alarms: float) -> None:
    passages = stories(60)
    found = calibrate_told(head(), passages, alarms=alarms, count=3000, seed=1)
    assert found is not None
    signs = draw_signs(head(), passages, 3000, 1)
    wrong = [signs["other"], signs["rival"]]
    assert all(kind.pass_share(*found) <= alarms for kind in wrong)
    recall = signs["told"].pass_share(*found)
    for pair in itertools.product(np.linspace(-1, 1, 41), np.linspace(0, 1, 41)):
        if all(kind.pass_share(*pair) <= alarms for kind in wrong):
            assert signs["told"].pass_share(*pair) <= recall + SLACK + 0.02


def test_the_figures_are_of_the_thresholds() -> None:
    passages = stories(60, seed=2)
    found = told_figures(head(told_similarity=-1.0, told_chance=0.0), passages, count=2000)
    assert found is not None
    assert (found["recall"], found["alarms_other"], found["alarms_rival"], found["recall_cosine"]) == (1, 1, 1, 1)
    strict = told_figures(head(told_similarity=1.0, told_chance=1.0), passages, count=2000)
    assert strict is not None and strict["recall"] == strict["alarms_other"] == 0
    similarity, chance = calibrate_told(head(), stories(60), alarms=0.01, count=3000) or (0.0, 0.0)
    fitted = told_figures(head(told_similarity=similarity, told_chance=chance), passages, count=2000)
    assert fitted is not None and fitted["recall"] > 0.5 and fitted["alarms_other"] < 0.03
    assert told_figures(head(), passages) is None


def test_without_anything_told_there_are_no_thresholds() -> None:
    whole = stories(20)
    spans = {name: getattr(whole, name)[whole.span] for name in ("latents", "story", "begin", "end", "span")}
    assert calibrate_told(head(), Passages(**spans, rivals=whole.rivals, span_tokens=10)) is None
