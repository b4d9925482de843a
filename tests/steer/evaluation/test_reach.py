"""The figures of a reach head: by hand."""

import numpy as np
import pytest

from steer.data.passage_pairs import story_pairs
from steer.evaluation.reach import nearer_and_farther
from steer.evaluation.statistics import auc, calibration
from tests.steer.data.kit import walks


def test_auc_and_calibration_by_hand() -> None:
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 0.0])) == 1
    assert auc(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.5
    assert auc(np.array([2.0]), np.array([1.0, 3.0, 2.0, 0.0])) == pytest.approx(2.5 / 4)
    found = calibration(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert found["ece"] == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)
    assert found["pairs"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2] and found["came"][0] == 0.5 and found["came"][1] is None


def test_nearer_and_farther_share_their_terminal() -> None:
    near, far = nearer_and_farther(story_pairs(walks(4)), 300, np.random.default_rng(0))
    assert len(near) and (near.terminal == far.terminal).all()
    assert (near.distance >= 1).all() and (near.distance < far.distance).all()
