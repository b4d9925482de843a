"""Waypoints as pulls: each span has one, in order, and the terminal's own schedule is left alone."""

import pytest
import torch

from steer.errors import GuidanceError
from steer.latents.schedules import bridge
from steer.latents.waypoints import stage_of, waypoint_pulls


@pytest.mark.parametrize("spans", range(1, 12))
@pytest.mark.parametrize("waypoints", range(5))
def test_stages_go_up_and_end_at_the_terminal(spans: int, waypoints: int) -> None:
    stages = stage_of(spans, waypoints)
    assert len(stages) == spans and stages == sorted(stages)
    if spans > waypoints:
        assert stages[-1] == waypoints and set(stages) == set(range(waypoints + 1))


def test_a_span_has_at_most_one_waypoint_and_the_last_has_none() -> None:
    weights = bridge(6)
    latents = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    pulls = waypoint_pulls([latents], weights, strength=0.5)
    table = torch.cat([pull.weights for pull in pulls])
    assert ((table > 0).sum(0) == torch.tensor([1, 1, 1, 1, 0, 0])).all()
    assert torch.allclose(table.sum(0)[:4], 0.5 * (1 - weights[:4]))
    assert all(torch.equal(pull.latent[0], latent) for pull, latent in zip(pulls, latents, strict=True))


def test_rows_may_have_other_numbers_of_waypoints() -> None:
    rows = [torch.ones(3, 4), torch.zeros(0, 4), torch.full((1, 4), 2.0)]
    pulls = waypoint_pulls(rows, torch.zeros(4), strength=1.0)
    weights = torch.stack([pull.weights for pull in pulls], dim=1)  # [rows, waypoints, spans]
    assert weights.sum(1).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    for pull in pulls:
        active = (pull.weights > 0).any(1)
        assert all(torch.equal(pull.latent[i], rows[i][0]) for i in active.nonzero().flatten().tolist())


def test_a_slice_of_the_way_is_that_slice() -> None:
    weights, latents = bridge(6), torch.randn(2, 4, generator=torch.Generator().manual_seed(1))

    def pulled(step: int, n: int) -> torch.Tensor:
        table = torch.zeros(n, 4)
        for pull in waypoint_pulls([latents], weights[step : step + n], step=step, steps=6):
            table += pull.weights[0][:, None] * pull.latent[0]
        return table

    assert torch.allclose(torch.cat([pulled(0, 2), pulled(2, 2), pulled(4, 2)]), pulled(0, 6))


def test_no_waypoints_and_no_strength_are_no_pulls() -> None:
    assert waypoint_pulls([torch.zeros(0, 4)], torch.zeros(3)) == []
    assert waypoint_pulls([], torch.zeros(3)) == []
    assert waypoint_pulls([torch.ones(2, 4)], torch.zeros(3), strength=0.0) == []
    assert waypoint_pulls([torch.ones(2, 4)], torch.ones(3)) == []


def test_bad_numbers_are_told() -> None:
    with pytest.raises(GuidanceError, match="strength is 2"):
        waypoint_pulls([torch.ones(1, 4)], torch.zeros(3), strength=2)
    with pytest.raises(GuidanceError, match="not among the 4"):
        waypoint_pulls([torch.ones(1, 4)], torch.zeros(3), step=2, steps=4)
    with pytest.raises(GuidanceError, match="another shape"):
        waypoint_pulls([torch.ones(4)], torch.zeros(3))
    with pytest.raises(GuidanceError, match="cannot be shared out"):
        stage_of(0, 1)
