"""How to spend nodes: six policies with one signature, `name(problem, config) -> Steps`.

| name | decides by | batch |
|---|---|---|
| best_of_n | nothing: full continuations side by side | a span of each |
| beam | values of the nodes at one depth | a whole depth |
| smc | weights of particles, drawn anew when they degenerate | a span of each particle |
| weave | logits with Gumbel noise, best first (MiniHF) | children of a node |
| mcts | PUCT, visits of a span's subtree | children of several leaves |
| gumbel | sequential halving of sampled candidates | a phase of equal visits |

Statistics in the tree: `visits` and `total` (mcts, gumbel), `inflight` (mcts), `logit` (weave, smc), `gumbel` (weave,
gumbel), `phi` (weave).
"""

from collections.abc import Mapping
from typing import Any

from steer.errors import SearchError
from steer.search.policies.beam import BeamConfig, beam
from steer.search.policies.best_of_n import BestOfNConfig, best_of_n
from steer.search.policies.gumbel import GumbelConfig, gumbel
from steer.search.policies.mcts import MctsConfig, mcts
from steer.search.policies.planning import PolicyConfig
from steer.search.policies.smc import SmcConfig, smc
from steer.search.policies.weave import WeaveConfig, weave
from steer.search.problem import Policy

POLICIES: dict[str, tuple[Policy, type[PolicyConfig]]] = {
    "best_of_n": (best_of_n, BestOfNConfig),
    "beam": (beam, BeamConfig),
    "smc": (smc, SmcConfig),
    "weave": (weave, WeaveConfig),
    "mcts": (mcts, MctsConfig),
    "gumbel": (gumbel, GumbelConfig),
}


def make_policy(name: str, options: Mapping[str, Any] | None = None) -> tuple[Policy, Any]:
    """The policy of that name and its checked options.

    Args:
        name: one of `POLICIES`.
        options: fields of its record, such as `{"leaves": 2}`; the others keep their defaults.

    Raises:
        SearchError: the name or an option is unknown, or a value is out of its range.
    """
    if not isinstance(name, str) or name not in POLICIES:
        raise SearchError(f"unknown policy {name!r}; expected one of {', '.join(POLICIES)}")
    policy, config = POLICIES[name]
    if not isinstance(options, Mapping | None):
        raise SearchError(f"options of a policy are a dict of its fields; got {options!r:.80}")
    return policy, config(**{str(key): value for key, value in (options or {}).items()})
