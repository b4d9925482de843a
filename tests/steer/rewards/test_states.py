"""States refuse what does not fit together, and a part of them is what it is in the whole."""

from typing import Any

import pytest
import torch

from steer.errors import RewardError
from tests.steer.rewards.fakes import make_states, random


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"latents": random(5)}, r"latents must be \[n, z\]", id="one latent"),
        pytest.param({"terminals": random(1, 5)}, r"terminals must be \[3, 5\]", id="one terminal"),
        pytest.param({"avoid": random(2, 4)}, r"avoid must be \[a, 5\]", id="width of avoid"),
        pytest.param({"avoid": random(2, 2, 5)}, r"avoid must be", id="rows of avoid"),
        pytest.param({"avoid": random(0, 5)}, "or None", id="nothing to avoid"),
        pytest.param({"latents": random(3, 5).double()}, "latents must be float32", id="dtype"),
        pytest.param({"before": [[1]]}, "before must have an entry for each of 3", id="length"),
        pytest.param({"spans": [[1], [], [2]]}, r"spans\[1\] is empty", id="empty span"),
        pytest.param({"remaining": [0, 1, -1]}, r"remaining\[2\] is -1", id="negative"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        make_states(**changes)


def test_final_is_ended_or_nothing_remains() -> None:
    states = make_states(4, ended=[False, False, True, True], remaining=[0, 2, 3, 0])
    assert states.final.tolist() == [True, False, True, True]


@pytest.mark.parametrize("avoid", [None, random(2, 5), random(4, 2, 5)], ids=["none", "shared", "own"])
def test_rows_keep_everything_of_a_row(avoid: torch.Tensor | None) -> None:
    states = make_states(4, avoid=avoid)
    part = states.rows([3, 1])
    assert len(part) == 2
    for new, old in enumerate([3, 1]):
        assert torch.equal(part.latents[new], states.latents[old])
        assert part.terminals is not None and states.terminals is not None
        assert torch.equal(part.terminals[new], states.terminals[old])
        for name in ("spans", "before", "contexts", "ended", "remaining"):
            assert getattr(part, name)[new] == getattr(states, name)[old]
        if avoid is not None and avoid.ndim == 3:
            assert part.avoid is not None and torch.equal(part.avoid[new], avoid[old])
    assert part.base_logprobs().tolist() == [-4, -2]
