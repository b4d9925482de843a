"""Searched writing: the counterpart of `write_guided` that looks at many continuations and returns the best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import torch
from torch import Tensor

from steer.errors import GuidanceError, LatentError, SearchError, TextError
from steer.latents.pull import Floats, Pull, as_floats, as_pulls
from steer.models.latent_model import LatentModel
from steer.noise import row_seeds
from steer.rewards import Rewards, default_rewards
from steer.search.action import Aim
from steer.search.budget import End, Outcome, Spent
from steer.search.config import SearchConfig, SearchOptions, writing_and_search
from steer.search.driver import run_search
from steer.search.engines.opening import open_engine
from steer.search.fields import Status
from steer.search.policies import make_policy
from steer.search.span_environment import SpanEnvironment
from steer.search.tree import Tree
from steer.writing.config import WritingConfig
from steer.writing.context import check_model, visible_ids
from steer.writing.span_texts import blanks_of, span_texts

Progress = Callable[[int, int | None], None]


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

    ids: tuple[int, ...] = field(repr=False)
    text: str
    spans: tuple[str, ...] = field(repr=False)
    latents: Tensor = field(repr=False)
    ended: bool
    context: tuple[int, ...] = field(repr=False)
    finished: bool
    status: End
    value: float
    components: dict[str, float]
    spent: Spent
    node: int = field(repr=False)
    tree: Tree = field(repr=False)


def write_searched(
    model: LatentModel,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    *,
    terminals: Floats | Sequence[str] | None = None,
    pulls: Sequence[Pull] | Pull | None = None,
    avoid: Floats | None = None,
    seeds: Sequence[int] | int = 0,
    config: WritingConfig | None = None,
    search: SearchConfig | None = None,
    tree: Tree | None = None,
    on_progress: Progress | None = None,
    **options: Unpack[SearchOptions],
) -> list[SearchResult]:
    """Search for the best continuation behind each context.

    All contexts are searched side by side, each under its own budget. The result is a function of model, arguments and
    seeds (in float32 whatever else is in the batch); time limits and Ctrl-C cut it off after some batch.

    Args:
        contexts: visible text, or token ids, per row.
        terminals: wished-for ends: `[n, z_dim]` or `[z_dim]` float32, or texts; None searches for what the rewards say.
            They are pulled to by the schedule of `config`, over the spans up to the deadline.
        pulls: instead of terminal and schedule, what an action of strength 1 mixes in (weights `[>= spans]`).
        avoid: `[a, z_dim]` float32, latents to stay away from.
        seeds: one per row, or one from which each row's is derived.
        config: how to write.
        search: how to search; its budget, or `budget=`, must be given.
        tree: of an earlier call with the same arguments (but the budget), to go on with.
        on_progress: called after each batch with the tokens generated so far, and with how many there can be at most
            (None where only time is limited).
        **options: fields of `config` and `search` to set, such as `spans=4, budget=Budget(tokens=2048)`.

    Raises:
        TextError, GuidanceError, LatentError, SearchError, RewardError: something does not fit; says what.
    """
    check_model(model)
    how, what = writing_and_search(config, search, options)
    pulls = None if pulls is None else as_pulls(pulls)
    avoid = None if avoid is None else as_floats(avoid, "avoid")
    if tree is not None and not isinstance(tree, Tree):
        raise SearchError(f"tree is {tree!r:.80} of {type(tree).__name__}; expected that of an earlier search")
    ids, chosen = _rows(model, contexts, seeds)
    latents = _terminals(model, terminals, len(ids))
    deadline = how.spans if what.deadline is None else what.deadline
    aims = _aims(latents, pulls, how.schedule.weights(deadline), len(ids), avoid)
    menu = what.menu_for(how, steers=bool(aims[0].pulls))
    if any(action.strength > 0 for action in menu) and not aims[0].pulls:
        raise GuidanceError("the menu steers, but there is nothing to steer to: give terminals or pulls")
    rewards = what.rewards
    if rewards is None:
        rewards = default_rewards(latents is not None, model.reach is not None, avoid is not None)
    scorer = Rewards(rewards, model)
    fresh = Tree(model.span_tokens, model.latent_config.z_dim, scorer.names)
    for context, seed in zip(ids, chosen, strict=True):
        fresh.add_root(context, seed=seed, horizon=how.spans, deadline=deadline)
    if tree is not None and _origin(tree) != _origin(fresh):
        raise SearchError(
            "the tree to go on with is of another model, other contexts, seeds, rewards, spans or deadline; give what "
            "it was made with"
        )
    tree = fresh if tree is None else tree
    engine = open_engine(
        model,
        tree,
        memory=what.memory,
        paged=what.paged,
        sampling=how.sampling,
        with_null=any(action.strength > 0 and action.guidance_scale != 1 for action in menu),
        limits=how.limits,
    )
    world = SpanEnvironment(engine, scorer, menu, aims, drafts=how.drafts)
    outcomes = _search(world, tree, what, len(menu), on_progress)
    blanks = blanks_of(contexts)
    return [_result(model, tree, outcome, blank) for outcome, blank in zip(outcomes, blanks, strict=True)]


def _rows(
    model: LatentModel, contexts: Sequence[str] | Sequence[Sequence[int]], seeds: Sequence[int] | int
) -> tuple[list[list[int]], list[int]]:
    """Visible ids and a seed for each context."""
    ids = visible_ids(model, contexts)
    if not ids:
        raise TextError("there are no contexts; give at least one")
    chosen = row_seeds(seeds, len(ids))
    if len(chosen) != len(ids):
        raise SearchError(f"expected a seed for each of {len(ids)} contexts; got {len(chosen)}")
    if not all(0 <= seed < 2**63 for seed in chosen):
        raise SearchError(f"seeds lie in [0, 2**63); got {chosen}; derive_seed(...) makes one")
    return ids, chosen


def _search(
    world: SpanEnvironment, tree: Tree, config: SearchConfig, actions: int, on_progress: Progress | None
) -> list[Outcome]:
    run, policy = make_policy(config.policy, config.policy_options)
    budget = config.budget_or_error()
    roots = len(tree.roots)
    most = None if budget.tokens is None else budget.tokens * roots
    if most is None and budget.nodes is not None:
        most = int(budget.nodes * roots * world.node_tokens(tree, 1))

    def report(outcomes: list[Outcome], active: int) -> None:
        if on_progress is not None:
            on_progress(sum(outcome.spent.tokens for outcome in outcomes), most)

    return run_search(world, tree, tree.roots, run, policy, budget, actions=actions, rows=config.rows, on_round=report)


def _origin(tree: Tree) -> tuple[Any, ...]:
    """All that a tree is made with before the first span."""
    keys = tree.key[tree.roots].tolist()
    return tree.span_tokens, tree.z_dim, tree.names, tree.contexts, keys, tree.horizons, tree.deadlines


def _terminals(model: LatentModel, terminals: Any, rows: int) -> Tensor | None:
    if terminals is None:
        return None
    if isinstance(terminals, str):
        raise TextError("terminals is one text; expected one per context: pass [text]")
    texts = isinstance(terminals, list | tuple) and all(isinstance(each, str) for each in terminals)
    latents = model.encode(terminals) if texts else as_floats(terminals, "terminals")
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
    weights: Tensor,
    rows: int,
    avoid: Tensor | None,
) -> list[Aim]:
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


def _result(model: LatentModel, tree: Tree, outcome: Outcome, blank: str) -> SearchResult:
    best = tree.best(outcome.root)
    node = tree.furthest(outcome.root) if best is None else best
    path = tree.path(node)
    texts = span_texts(model, tree.context(node), [tree.span(n) for n in path], blank=blank)
    return SearchResult(
        ids=tuple(tree.ids(node)),
        text="".join(texts),
        spans=texts,
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
