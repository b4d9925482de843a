"""Sequential Monte Carlo (a particle filter) over spans.

Particles follow the model and are weighted by `exp((V(s') - V(s)) / T)` for each span from s to s'. The factors
telescope to `exp(V(end) / T)`, so what counts in the end is the true value of a complete node: estimates on the way
only decide where effort goes (Del Moral et al., 2006, "Sequential Monte Carlo samplers"; Zhao et al., 2024,
"Probabilistic inference in language models via twisted sequential Monte Carlo"; Puri et al., 2025, arXiv 2502.01618).
"""

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from steer.search.environment import Request
from steer.search.fields import Status
from steer.search.policies.backup import Floats, log_softmax
from steer.search.policies.planning import Count, PolicyConfig, Positive, original, planned_temperature, total
from steer.search.problem import Problem, Steps


class SmcConfig(PolicyConfig):
    """Options of `smc`.

    Attributes:
        particles: how many, cut down to as many as the nodes allow at full length. None takes as many as there are
            nodes for, and where stories end early starts anew with what they left.
        temperature: T, in units of the value: a difference of T is a factor of e in how likely a particle is to go on.
            None takes half the standard deviation of the values one span behind the root.
        threshold: particles are drawn anew where the effective sample size is below this share of them; 0 never does,
            1 does whenever weights differ.
    """

    particles: Count | None = None
    temperature: Positive | None = None
    threshold: float = Field(0.5, ge=0, le=1)


def smc(problem: Problem, config: SmcConfig) -> Steps:
    """Extend all particles by a span, weigh them, and draw them anew where few carry most of the weight.

    Copies of a particle are further children of the same node. Complete particles stay with their weight and cost
    nothing. A batch is one span of every unfinished particle.
    """
    left, run = total(problem), 0
    while left > 0:
        fits = max(1, left // problem.horizon)
        particles = fits if config.particles is None else min(config.particles, fits)
        left = yield from _filter(problem, config, particles, left, run)
        run += 1
        if config.particles is not None or left < problem.horizon:
            return


def _filter(
    problem: Problem, config: SmcConfig, particles: int, left: int, run: int
) -> Generator[list[Request], list[int], int]:
    """One particle filter from the root to the horizon; returns the nodes that are left."""
    tree = problem.tree
    at = [problem.root] * particles
    weights = np.zeros(particles)
    temperature = config.temperature
    for step in range(problem.horizon):
        open_ = [i for i, node in enumerate(at) if not tree.is_complete(node)]
        if not open_ or left <= 0:
            break
        written = yield [request for i in open_ for request in problem.ask(at[i])]
        left -= len(open_)
        temperature = temperature or planned_temperature(tree.value[written])
        for i, node in zip(open_, written, strict=False):
            node = original(tree, node)
            weights[i] += (float(tree.value[node]) - float(tree.value[at[i]])) / temperature
            at[i] = node
            tree.logit[node] = weights[i]
            tree.mark(node, Status.COMMITTED)
        if step < problem.horizon - 1 and effective_size(weights) < config.threshold * particles:
            chosen = systematic(weights, problem.rng(problem.root, "smc", run, step).random())
            survivors = [at[i] for i in chosen]
            for node in set(at) - set(survivors):
                tree.mark(node, Status.PRUNED)
            at, weights = survivors, np.zeros(particles)
    return left


def effective_size(log_weights: Floats) -> float:
    """`(sum w)^2 / sum w^2`: from 1, where one particle has all the weight, to n, where all have the same."""
    return float(1 / np.sum(np.exp(2 * log_softmax(log_weights))))


def systematic(log_weights: Floats, uniform: float) -> NDArray[np.intp]:
    """SpanSample n of n particles by one uniform number: int `[n]`, not falling.

    Particle i is drawn `floor` or `ceil` of `n * w_i` times, `n * w_i` on average (Kitagawa, 1996).

    Args:
        log_weights: `[n]`, not necessarily normalised.
        uniform: in [0, 1).
    """
    n = len(log_weights)
    edges = np.cumsum(np.exp(log_softmax(log_weights)))
    return np.minimum(np.searchsorted(edges, (uniform + np.arange(n)) / n, side="right"), n - 1)
