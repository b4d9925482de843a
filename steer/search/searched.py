"""Searched writing: the counterpart of `write_guided` that looks at many continuations and returns the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from steer.errors import GuidanceError, LatentError, SearchError, TextError
from steer.latents.pull import Pull
from steer.latents.schedules import ScheduleConfig
from steer.noise import row_seeds
from steer.rewards import Rewards, RewardsConfig, default_rewards
from steer.search.driver import Budget, End, Outcome, Spent, run_search
from steer.search.engines.opening import open_engine
from steer.search.fields import Status
from steer.search.policies import make_policy
from steer.search.span_environment import Action, Aim, SpanWorld
from steer.search.tree import Tree
from steer.writing.context import visible_ids
from steer.writing.limits import Limits
from steer.writing.proposals import Drafts
from steer.writing.sampling import SamplingConfig

GUIDED_MENU = (Action(1.0, 1.5), Action(0.7, 1.5))
UNGUIDED_MENU = (Action(),)


@dataclass(frozen=True)
class SearchResult:
    """The best that a search found for one context.

    Attributes:
        ids: token ids, special tokens included.
        text: the written part alone.
        spans: text of each span.
        latents: `[n, z_dim]`, what each span was written from; zeros where nothing steered.
        ended: whether the story ended.
        context: the visible token ids that were fed.
        finished: whether it has all its spans, or the story ended. An unfinished text is returned only where no
            finished one was found.
        status: how the search ended.
        value: of the best.
        components: its last node's rewards by name, unpooled.
        spent: the cost for this context.
        node: the best in the tree.
        tree: all that was written.
    """

    ids: tuple[int, ...]
    text: str
    spans: tuple[str, ...]
    latents: Tensor = field(repr=False)
    ended: bool
    context: tuple[int, ...] = field(repr=False)
    finished: bool
    status: End
    value: float
    components: dict[str, float]
    spent: Spent
    node: int
    tree: Tree = field(repr=False)


def write_searched(
    model: Any,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    *,
    terminals: Tensor | Sequence[str] | None = None,
    spans: int = 6,
    policy: str = "mcts",
    policy_options: Mapping[str, Any] | None = None,
    budget: Budget,
    seeds: Sequence[int] | int = 0,
    sampling: SamplingConfig | None = None,
    menu: Sequence[Action] = UNGUIDED_MENU,
    schedule: str | ScheduleConfig = "bridge",
    pulls: Sequence[Pull] | None = None,
    deadline: int | None = None,
    rewards: RewardsConfig | Mapping[str, Any] | None = None,
    avoid: Tensor | None = None,
    limits: Limits | None = None,
    drafts: Drafts = "write",
    rows: int = 256,
    memory: int = 2 * 2**30,
    paged: bool | None = None,
    tree: Tree | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> list[SearchResult]:
    """Search for the best continuation of `spans` spans behind each context.

    All contexts are searched side by side, each under its own budget. The result is a function of model, arguments and
    seeds (in float32 whatever else is in the batch); time limits and Ctrl-C cut it off after some batch.

    Args:
        model: a `LatentModel`.
        contexts: visible text, or token ids, per row.
        terminals: wished-for ends: `[n, z_dim]` or `[z_dim]` float32, or texts; None searches for what the rewards say.
        spans: to write.
        policy, policy_options: see `steer.search.policies`.
        budget: per row.
        seeds: one per row, or one from which each row's is derived.
        sampling: settings; the default is temperature 0.8.
        menu: actions; the default writes unguided. `GUIDED_MENU` is a good one to start with for guided search.
        schedule: of the pull towards the terminal, over the spans up to the deadline.
        pulls: instead of terminal and schedule, what an action of strength 1 mixes in (weights `[>= spans]`).
        deadline: spans until the terminal should be there; by default `spans`. With a later one, texts are compared by
            what they promise.
        rewards: what is good; by default `default_rewards`.
        avoid: `[a, z_dim]` float32, latents to stay away from.
        limits: what may not be written.
        drafts: how the model drafts, see `SpanWorld`.
        rows: spans in one batch, at most.
        memory: bytes for key-value pages, see `open_engine`.
        paged: see `open_engine`.
        tree: of an earlier call with the same arguments (but the budget), to go on with.
        on_progress: called after each batch with the tokens generated so far, and with how many there can be at most
            (None where only time is limited).

    Raises:
        TextError, GuidanceError, LatentError, SearchError, RewardError: something does not fit; says what.
    """
    ids = visible_ids(model, contexts)
    if not ids:
        raise TextError("there are no contexts; give at least one")
    chosen = row_seeds(seeds, len(ids))
    if len(chosen) != len(ids):
        raise SearchError(f"expected a seed for each of {len(ids)} contexts; got {len(chosen)}")
    if not all(0 <= seed < 2**63 for seed in chosen):
        raise SearchError(f"seeds lie in [0, 2**63); got {chosen}; derive_seed(...) makes one")
    if spans < 1:
        raise SearchError(f"spans must be at least 1; got {spans}")
    latents = _terminals(model, terminals, len(ids))
    steps = spans if deadline is None else deadline
    aims = _aims(latents, pulls, schedule, steps, len(ids), avoid)
    if any(a.strength > 0 for a in menu) and not aims[0].pulls:
        raise GuidanceError("the menu steers, but there is nothing to steer to: give terminals or pulls")
    if rewards is None:
        has_reach = getattr(model, "reach", None) is not None
        rewards = default_rewards(latents is not None, has_reach, avoid is not None)
    scorer = Rewards(rewards, model)
    run, config = make_policy(policy, policy_options or {})
    fresh = Tree(model.span_tokens, model.latent_config.z_dim, scorer.names)
    for context, seed in zip(ids, chosen, strict=True):
        fresh.add_root(context, seed=seed, horizon=spans, deadline=steps)
    if tree is None:
        tree = fresh
    elif _origin(tree) != _origin(fresh):
        raise SearchError(
            "the tree to go on with is of another model, other contexts, seeds, rewards, spans or deadline; give what "
            "it was made with"
        )
    with_null = any(a.strength > 0 and a.scale != 1 for a in menu)
    engine = open_engine(
        model,
        tree,
        memory=memory,
        paged=paged,
        sampling=sampling or SamplingConfig(),
        with_null=with_null,
        limits=limits,
    )
    world = SpanWorld(engine, scorer, menu, aims, drafts=drafts)
    most = None if budget.tokens is None else budget.tokens * len(ids)
    if most is None and budget.nodes is not None:
        most = int(budget.nodes * len(ids) * world.node_tokens(tree, 1))

    def report(outcomes: list[Outcome], active: int) -> None:
        if on_progress is not None:
            on_progress(sum(o.spent.tokens for o in outcomes), most)

    outcomes = run_search(world, tree, tree.roots, run, config, budget, actions=len(menu), rows=rows, on_round=report)
    return [_result(model, tree, outcome) for outcome in outcomes]


def _origin(tree: Tree) -> tuple[Any, ...]:
    """All that a tree is made with before the first span."""
    keys = tree.key[tree.roots].tolist()
    return tree.span_tokens, tree.z_dim, tree.names, tree.contexts, keys, tree.horizons, tree.deadlines


def _terminals(model: Any, terminals: Any, rows: int) -> Tensor | None:
    if terminals is None:
        return None
    if isinstance(terminals, str):
        raise TextError("terminals is one text; expected one per context: pass [text]")
    latents = terminals if isinstance(terminals, Tensor) else model.encode(list(terminals))
    latents = latents[None] if latents.ndim == 1 else latents
    if latents.ndim != 2 or latents.shape[1] != model.latent_config.z_dim or len(latents) not in (1, rows):
        raise LatentError(
            f"expected terminals [{rows}, {model.latent_config.z_dim}], one per context; got {list(latents.shape)}"
        )
    if not bool(torch.isfinite(latents).all()):
        raise LatentError("terminals hold NaN or infinity")
    return latents.float().cpu().expand(rows, -1)


def _aims(
    latents: Tensor | None,
    pulls: Sequence[Pull] | None,
    schedule: str | ScheduleConfig,
    steps: int,
    rows: int,
    avoid: Tensor | None,
) -> list[Aim]:
    config = ScheduleConfig(schedule) if isinstance(schedule, str) else schedule
    weights = config.weights(steps)
    aims = []
    for row in range(rows):
        terminal = None if latents is None else latents[row]
        if pulls is not None:
            own = tuple(_row(pull, row, rows) for pull in pulls)
        else:
            own = () if terminal is None else (Pull(terminal, weights),)
        aims.append(Aim(own, terminal, avoid))
    return aims


def _row(pull: Pull, row: int, rows: int) -> Pull:
    """A pull as it is for one row."""

    def pick(x: Tensor) -> Tensor:
        if x.ndim == 1:
            return x
        if len(x) not in (1, rows):
            raise GuidanceError(f"a pull's {list(x.shape)} does not fit {rows} rows")
        return x[row if len(x) > 1 else 0]

    return Pull(pick(pull.latent), pick(pull.weights), pull.avoid)


def _result(model: Any, tree: Tree, outcome: Outcome) -> SearchResult:
    best = tree.best(outcome.root)
    node = tree.furthest(outcome.root) if best is None else best
    path = tree.path(node)
    return SearchResult(
        ids=tuple(tree.ids(node)),
        text=model.to_text(tree.ids(node)),
        spans=tuple(model.to_text(tree.span(n)) for n in path),
        latents=torch.from_numpy(tree.written_from[path].copy()),
        ended=tree.has(node, Status.ENDED),
        context=tree.context(node),
        finished=best is not None,
        status=outcome.status,
        value=float(tree.value[node]),
        components={name: float(x) for name, x in zip(tree.names, tree.components[node], strict=True)},
        spent=replace(outcome.spent),
        node=node,
        tree=tree,
    )
