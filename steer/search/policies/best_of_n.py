"""Best of n: n independent continuations, the best of which is the result. The baseline for everything else."""

from steer.search.fields import Status
from steer.search.policies.planning import Count, PolicyConfig, original, total, unfinished
from steer.search.problem import Problem, Steps


class BestOfNConfig(PolicyConfig):
    """Options of `best_of_n`.

    Attributes:
        n: continuations, cut down to as many as the nodes allow at full length. None writes as many as there are nodes
            for, and where stories end early starts anew with what they left.
    """

    n: Count | None = None


def best_of_n(problem: Problem, config: BestOfNConfig) -> Steps:
    """Write n full continuations side by side, level by level.

    Values are not looked at: the result is the best complete node. A batch holds one span of each continuation.
    """
    tree, left = problem.tree, total(problem)
    while left > 0:
        fits = max(1, left // problem.horizon)
        nodes = [problem.root] * (fits if config.n is None else min(config.n, fits))
        while nodes and left > 0:
            written = yield [request for node in nodes for request in problem.ask(node)]
            left -= len(nodes)
            for node in written:
                tree.mark(node, Status.COMMITTED)
            nodes = unfinished(problem, [original(tree, node) for node in written])
        if config.n is not None or left < problem.horizon:
            return
