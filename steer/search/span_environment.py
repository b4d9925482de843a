"""The world of a latent model: spans written behind nodes, steered by the menu, scored by rewards."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from steer.errors import SearchError
from steer.latents.mixing import mix
from steer.latents.pull import Pull, arrived
from steer.noise import child_key, derive_seed
from steer.rewards import Rewards, States
from steer.search.action import Action, Aim
from steer.search.engines.base import Engine, SpanRequest
from steer.search.environment import Environment, Request
from steer.search.tree import Tree
from steer.writing.context import check_positions
from steer.writing.proposals import Drafts, check_drafts, head_drafts


@final
class SpanEnvironment(Environment):
    """Children are spans of a latent model.

    Args:
        engine: writes them.
        rewards: score them.
        menu: actions; a request names one by its place.
        aims: one per root of the tree, in order.
        drafts: how the model proposes latents: `write` a span and encode it, or ask the draft `head`, which costs no
            tokens.

    Attributes:
        draft_tokens: generated for drafts so far, in all roots.

    Raises:
        GuidanceError: drafts are to come from a head that the model has not.
        SearchError: the menu is empty or does not fit the engine, there is not an aim per root or one does not fit, or
            a root has no context.
        TextError: a root's context and the spans up to its horizon exceed the base's table of positions.
    """

    def __init__(
        self,
        engine: Engine,
        rewards: Rewards,
        menu: Sequence[Action],
        aims: Sequence[Aim],
        *,
        drafts: Drafts = "write",
    ) -> None:
        check_drafts(engine.model, drafts)
        if not menu:
            raise SearchError("the menu is empty; expected at least one action")
        if len(aims) != len(engine.tree.roots):
            raise SearchError(f"expected an aim for each of {len(engine.tree.roots)} roots; got {len(aims)}")
        if not engine.with_null and any(a.guidance_scale != 1 and a.strength > 0 for a in menu):
            raise SearchError("a scale other than 1 needs an engine with a null arm: open it with with_null=True")
        if engine.sampling.temperature == 0 and any(a.temperature is not None for a in menu):
            raise SearchError("the menu has temperatures, but sampling is greedy; give sampling a temperature")
        for number, aim in enumerate(aims):
            _check_root(engine.tree, number, aim)
            check_positions(engine.model, engine.tree.contexts[number], engine.tree.horizons[number])
        self.engine, self.rewards = engine, rewards
        self.menu, self.aims = tuple(menu), tuple(aims)
        self.drafts: Drafts = drafts
        self.draft_tokens = 0
        self._pulled: dict[tuple[int, int, int], tuple[Pull, ...]] = {}

    # -- costs -------------------------------------------------------------------------------------------------------

    def costs(self, tree: Tree, requests: Sequence[Request], drafted: set[int]) -> list[int]:
        """A span per request, and one more for the first of a parent that mixes something into a written draft."""
        costs = []
        for request in requests:
            cost = tree.span_tokens
            if request.parent not in drafted and self._drafts(tree, request):
                drafted.add(request.parent)
                cost += tree.span_tokens if self.drafts == "write" else 0
            costs.append(cost)
        return costs

    def node_tokens(self, tree: Tree, fanout: float) -> float:
        """A span, and where actions steer the share of a draft, if drafts are written."""
        steers = any(action.strength > 0 for action in self.menu) and any(aim.pulls for aim in self.aims)
        return tree.span_tokens * (1 + 1 / max(1, fanout) if steers and self.drafts == "write" else 1.0)

    def _drafts(self, tree: Tree, request: Request) -> bool:
        """Whether a request mixes something into a draft."""
        pulls = self._pulls(tree, request)
        return bool(pulls) and arrived(pulls, 0) is None

    def _pulls(self, tree: Tree, request: Request) -> tuple[Pull, ...]:
        """The pulls of a request, each with one weight, as its action has it; without those of weight 0."""
        place = tree.number(request.parent), int(tree.depth[request.parent]), request.action
        if place not in self._pulled:
            self._pulled[place] = tuple(self._weighed(*place))
        return self._pulled[place]

    def _weighed(self, number: int, depth: int, action: int) -> Iterator[Pull]:
        strength = self.menu[action].strength
        for pull in self.aims[number].pulls:
            weight = pull.weights[..., depth : depth + 1]
            # What is to be avoided is avoided as it is; what draws, draws as hard as the action says.
            weight = weight if pull.avoid and strength > 0 else (weight * strength).clamp(max=1)
            if bool(weight > 0):
                yield Pull(pull.latent, weight, pull.avoid)

    # -- expanding ---------------------------------------------------------------------------------------------------

    def expand(self, tree: Tree, requests: Sequence[Request]) -> list[int]:
        """Draft, mix, write, encode, score, add; see `Environment`."""
        order = sorted(range(len(requests)), key=lambda i: (requests[i].parent, requests[i].index))
        rows = [requests[i] for i in order]
        drafts = self._draft(tree, [r for r in rows if not tree.has_draft[r.parent] and self._drafts(tree, r)])
        z, steered = self._latents(tree, rows, drafts)
        actions = [self.menu[r.action] for r in rows]
        temperatures = None
        if any(a.temperature is not None for a in actions):
            own = self.engine.sampling.temperature
            temperatures = torch.tensor([own if a.temperature is None else a.temperature for a in actions])
        scales = torch.tensor([a.guidance_scale if s else 1.0 for a, s in zip(actions, steered.tolist(), strict=True)])
        draw = self.engine.write(
            SpanRequest(
                [r.parent for r in rows],
                [child_key(int(tree.key[r.parent]), r.index) for r in rows],
                z if bool(steered.any()) else None,
                steered,
                scales if self.engine.with_null else None,
                temperatures,
            )
        )
        latents = self.engine.model.encode_ids(draw.spans)
        components, values = self._score(tree, rows, draw.spans, draw.ended, latents)
        # Only now, so that a run that is interrupted leaves a whole tree.
        for parent, latent in drafts.items():
            tree.draft[parent], tree.has_draft[parent] = latent.numpy(), True
        nodes = [0] * len(rows)
        for row, (place, request) in enumerate(zip(order, rows, strict=True)):
            nodes[place] = tree.add(
                request.parent,
                request.index,
                draw.spans[row],
                action=request.action,
                ended=draw.ended[row],
                value=float(values[row]),
                logprob=float(draw.logprobs[row]),
                written_from=z[row].numpy() if bool(steered[row]) else None,
                latent=latents[row].numpy(),
                components=components[row].numpy(),
            )
        self.engine.commit(draw, range(len(rows)), [nodes[place] for place in order])
        return nodes

    def _draft(self, tree: Tree, requests: Sequence[Request]) -> dict[int, Tensor]:
        """The model's own proposals, `[z]`, for the spans behind the parents of requests."""
        parents = list(dict.fromkeys(r.parent for r in requests))
        if not parents:
            return {}
        seeds = [derive_seed(int(tree.key[p]), "draft") for p in parents]
        if self.drafts == "head":
            model, temperature = self.engine.model, self.engine.sampling.temperature
            visible = [tree.visible(p) for p in parents]
            drawn = head_drafts(model, self.engine.hidden(parents), visible, seeds, temperature=temperature)
            return dict(zip(parents, drawn, strict=True))
        draw = self.engine.write(SpanRequest(parents, seeds), draft=True)
        self.draft_tokens += tree.span_tokens * len(parents)
        return dict(zip(parents, self.engine.model.encode_ids(draw.spans), strict=True))

    def _latents(self, tree: Tree, rows: Sequence[Request], drafts: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """What each row is written from, `[R, z]`, and whether anything steers it, `[R]`."""
        z, steered = torch.zeros(len(rows), tree.z_dim), torch.zeros(len(rows), dtype=torch.bool)
        made: dict[tuple[int, int], Tensor | None] = {}
        for row, request in enumerate(rows):
            name = (request.parent, request.action)
            if name not in made:
                made[name] = self._latent(tree, request, drafts)
            latent = made[name]
            # Zeros stand for "nothing steered" in the tree, so a latent of zeros must not steer.
            if latent is not None and bool(latent.any()):
                z[row], steered[row] = latent, True
        return z, steered

    def _latent(self, tree: Tree, request: Request, drafts: dict[int, Tensor]) -> Tensor | None:
        pulls = self._pulls(tree, request)
        if not pulls:
            return None
        alone = arrived(pulls, 0)
        if alone is not None:
            return alone.cpu()
        draft = drafts.get(request.parent)
        if draft is None:
            draft = torch.from_numpy(tree.draft[request.parent].copy())
        return mix(draft[None], pulls, 0)[0]

    def _score(
        self,
        tree: Tree,
        rows: Sequence[Request],
        spans: Sequence[Sequence[int]],
        ended: Sequence[bool],
        latents: Tensor,
    ) -> tuple[Tensor, np.ndarray]:
        """Components `[R, C]` of new nodes, and their values `[R]`."""
        parents = [r.parent for r in rows]
        aims = [self.aims[tree.number(p)] for p in parents]
        depths = [int(tree.depth[p]) + 1 for p in parents]
        remaining = [tree.deadline(p) - d for p, d in zip(parents, depths, strict=True)]
        states = States(
            model=self.engine.model,
            latents=latents,
            terminals=_stack([aim.terminal for aim in aims], "terminal"),
            avoid=_stack([aim.avoid for aim in aims], "latents to avoid"),
            spans=spans,
            before=[tree.ids(p) for p in parents],
            contexts=[tree.context(p) for p in parents],
            ended=list(ended),
            remaining=[0 if over else left for over, left in zip(ended, remaining, strict=True)],
            base_logprobs=cache(lambda: self.engine.base_logprobs(parents, spans)),
        )
        components = self.rewards.score(states)
        own = components.numpy().astype(np.float64)
        sums = np.stack([tree.components[tree.path(p)].astype(np.float64).sum(0) for p in parents]) + own
        return components, self.rewards.combine_many(sums, own, depths, states.final)


def _check_root(tree: Tree, number: int, aim: Aim) -> None:
    z_dim, spans = tree.z_dim, tree.horizons[number]
    if not tree.contexts[number]:
        raise SearchError(f"root {number} has no context; give at least one token, such as the end token")
    for pull in aim.pulls:
        if pull.latent.shape != (z_dim,) or pull.weights.ndim != 1 or len(pull.weights) < spans:
            raise SearchError(
                f"the pulls of root {number} must have latents [{z_dim}] and weights [{spans}] or longer; got "
                f"{list(pull.latent.shape)} and {list(pull.weights.shape)}"
            )
    for name, latent, fits in (
        ("terminal", aim.terminal, lambda shape: shape == (z_dim,)),
        ("avoid", aim.avoid, lambda shape: len(shape) == 2 and shape[0] > 0 and shape[1] == z_dim),
    ):
        if latent is not None and not (fits(latent.shape) and bool(torch.isfinite(latent).all())):
            wanted = f"[{z_dim}]" if name == "terminal" else f"[a, {z_dim}]"
            raise SearchError(f"{name} of root {number} must be finite and {wanted}; got {list(latent.shape)}")


def _stack(latents: Sequence[Tensor | None], what: str) -> Tensor | None:
    given = [x for x in latents if x is not None]
    if not given:
        return None
    if len(given) < len(latents) or len({x.shape for x in given}) > 1:
        raise SearchError(f"either all roots of one search have a {what} or none has, and of one shape")
    return torch.stack(given).float().cpu()
