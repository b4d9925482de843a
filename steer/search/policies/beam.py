"""Beam search over spans: at each depth the best few distinct nodes by their values go on."""

from collections.abc import Sequence

from steer.search.environment import Request
from steer.search.fields import Status
from steer.search.policies.planning import Count, PolicyConfig, share, total, unfinished
from steer.search.problem import Problem, Steps


class BeamConfig(PolicyConfig):
    """Options of `beam`.

    Attributes:
        width: nodes that are kept at each depth, cut down to what the budget can expand. None plans it from the nodes,
            spends all of them, and where stories end early starts anew with what they left.
        expand: children of each node of the beam. The root has `width * expand`, so that the first depth is as wide
            as the others.
    """

    width: Count | None = None
    expand: Count = 4

    @property
    def fanout(self) -> float:
        """Children of an expanded node."""
        return float(self.expand)


def beam(problem: Problem, config: BeamConfig) -> Steps:
    """Expand every node of the beam, then keep the `width` best distinct of the new and the complete ones.

    A complete node stays a candidate and takes a place as long as it is among the best. A batch is a whole depth.
    """
    tree, left = problem.tree, total(problem)
    while left > 0:
        kept: list[int] = []
        nodes, depth = [problem.root], 0
        while nodes and left > 0:
            count = share(problem, depth, left)
            if config.width is not None:
                count = min(count, (len(nodes) if depth else config.width) * config.expand)
            width = max(1, count // config.expand)
            written = yield _spread(problem, nodes, count)
            left -= count
            found = [n for n in written if not tree.has(n, Status.DUPLICATE)]
            ranked = sorted([n for n in kept if tree.is_complete(n)] + found, key=lambda n: -tree.value[n])
            kept = ranked[: width if config.width is None else min(width, config.width)]
            for node in ranked:
                tree.mark(node, Status.COMMITTED if node in kept else Status.PRUNED)
            nodes, depth = unfinished(problem, kept), depth + 1
        if config.width is not None or left < problem.horizon:
            return


def _spread(problem: Problem, nodes: Sequence[int], count: int) -> list[Request]:
    """Requests for `count` children in all, as evenly as they go, the better nodes first."""
    each, more = divmod(count, len(nodes))
    return [request for i, node in enumerate(nodes) for request in problem.ask(node, each + (i < more))]
