"""Writing in one call: contexts and goals as they are at hand, guided or searched.

`LatentModel.write`, `stream` and `pull` are these functions. What they take is turned into what `write_guided` and
`write_searched` take, and one context in gives one text out.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Unpack, get_args

import numpy as np
import torch
from torch import Tensor

from steer.errors import ArgumentError, GuidanceError
from steer.latents.pull import Floats, Pull, as_floats
from steer.latents.schedules import ScheduleConfig
from steer.models.latent_model import LatentModel
from steer.search.budget import Budget
from steer.search.config import UNGUIDED_MENU, SearchOptions, writing_and_search
from steer.search.searched import SearchResult, write_searched
from steer.writing.config import WritingConfig, WritingOptions, writing_config
from steer.writing.guided import write_guided, write_spans

Goal = str | Floats | Pull
Context = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
Method = Literal["guided", "search", "guided-search"]

TIMES = 16  # spans that a search may write for each span of the text, where no budget is given


def pull(
    model: LatentModel,
    goal: str | Floats,
    weights: Floats | ScheduleConfig | None = None,
    *,
    spans: int | None = None,
    avoid: bool = False,
) -> Pull:
    """A pull towards a text, or away from it.

    Args:
        model: encodes the text.
        goal: a text of at most one span, or a latent `[z_dim]`, or one per row `[B, z_dim]`.
        weights: a number, a schedule `[n]`, or a `ScheduleConfig`; by default that of `WritingConfig`, and 1 at every
            step for what is to be avoided.
        spans: steps of a `ScheduleConfig`; by default those of `WritingConfig`.
        avoid: push away from it.

    Raises:
        TextError: the text is empty, or longer than a span.
        GuidanceError: the latent or the weights are none.
    """
    how = writing_config(spans=spans) if spans is not None else WritingConfig()
    if weights is None:
        weights = 1.0 if avoid else how.schedule
    if isinstance(weights, ScheduleConfig):
        weights = weights.weights(how.spans)
    latent = model.encode(goal)[0] if isinstance(goal, str) else as_floats(goal, "a goal")
    return Pull(latent, weights, avoid)


def write(
    model: LatentModel,
    context: Context,
    *,
    toward: Goal | Sequence[Goal] = (),
    avoid: Goal | Sequence[Goal] = (),
    seed: int | Sequence[int] = 0,
    method: Method = "guided",
    config: WritingConfig | None = None,
    **options: Unpack[SearchOptions],
) -> Any:
    """Write on from a context, pulled towards goals that the model never reads.

    Args:
        context: a text, or its token ids; or a list of them. It is all that the model sees besides what it writes.
        toward: a text, a latent `[z_dim]` (or one per context, `[B, z_dim]`) or a `Pull`; or several of them.
        avoid: what to stay away from, likewise.
        seed: the same seed gives the same text; of several contexts each has its own, derived from it or given.
        method: `guided` writes once; `search` looks at many continuations and keeps the best, which none of them is
            pulled to; `guided-search` pulls them too.
        config: how to write.
        **options: fields of `WritingConfig`, such as `spans=4`; and of `SearchConfig` for a search, such as `policy=`
            and `budget=` (a `Budget`, or spans to write for each span of the text; by default 16).

    Returns:
        A `Written`, or for a search a `SearchResult`; a list of them where a list of contexts came.

    Raises:
        TextError, GuidanceError, LatentError, SearchError, RewardError: something does not fit; says what.
    """
    rows, single = _contexts(context)
    seeds: Any = [seed] if single and isinstance(seed, int) else seed
    if method not in get_args(Method):
        raise ArgumentError(f"method={method!r} is unknown; expected one of {', '.join(get_args(Method))}")
    if method == "guided":
        how = writing_config(config, **options)  # pyright: ignore  # options of a search are refused
        written: Sequence[Any] = write_guided(
            model, rows, pulls=_pulls(model, toward, avoid, how.schedule, how.spans), seeds=seeds, config=how
        )
    else:
        written = _search(model, rows, toward, avoid, seeds, method == "guided-search", config, options)
    return written[0] if single else list(written)


def stream(
    model: LatentModel,
    context: Context,
    *,
    toward: Goal | Sequence[Goal] = (),
    avoid: Goal | Sequence[Goal] = (),
    seed: int | Sequence[int] = 0,
    config: WritingConfig | None = None,
    **options: Unpack[WritingOptions],
) -> Iterator[Any]:
    """`write` with method `guided`, span by span as they are written; arguments and errors are those of `write`.

    Yields:
        The text of a span; where a list of contexts came a list of texts, empty behind the end of a story. Together
        they are the `spans` of what `write` returns.
    """
    rows, single = _contexts(context)
    how = writing_config(config, **options)
    seeds: Any = [seed] if single and isinstance(seed, int) else seed
    pulls = _pulls(model, toward, avoid, how.schedule, how.spans)
    for texts in write_spans(model, rows, pulls, seeds, how):
        yield texts[0] if single else texts


def _contexts(context: Any) -> tuple[list[Any], bool]:
    """The contexts as a list, and whether it was one."""
    if isinstance(context, str):
        return [context], True
    if isinstance(context, Tensor | np.ndarray):
        context = context.tolist()
    if isinstance(context, bytes) or not isinstance(context, Sequence):
        raise ArgumentError(f"expected a context, or a list of them; got {context!r:.80} of {type(context).__name__}")
    single = bool(context) and isinstance(context[0], int | np.integer)
    return ([context], True) if single else (list(context), False)


def _goals(goals: Any) -> list[Any]:
    """One goal, or several, as a list."""
    if goals is None:
        return []
    if isinstance(goals, list | tuple):
        numbers = bool(goals) and all(isinstance(x, int | float | np.number) for x in goals)
        return [goals] if numbers else list(goals)
    return [goals]


def _pulls(model: LatentModel, toward: Any, avoid: Any, schedule: ScheduleConfig, steps: int) -> list[Pull]:
    towards = [x if isinstance(x, Pull) else pull(model, x, schedule, spans=steps) for x in _goals(toward)]
    for pulled in towards:
        if pulled.avoid:
            raise GuidanceError("a pull that avoids its latent is given by avoid=; got it in toward=")
    away = [x if isinstance(x, Pull) else pull(model, x, avoid=True) for x in _goals(avoid)]
    return [*towards, *(Pull(x.latent, x.weights, avoid=True) for x in away)]


def _search(
    model: LatentModel,
    contexts: list[Any],
    toward: Any,
    avoid: Any,
    seeds: Any,
    guided: bool,
    config: WritingConfig | None,
    options: Any,
) -> list[SearchResult]:
    how, what = writing_and_search(config, None, options)
    if what.budget is None or isinstance(what.budget, int):
        times = TIMES if what.budget is None else what.budget
        options = {**options, "budget": Budget(tokens=times * how.spans * model.span_tokens)}
    pulls = _pulls(model, toward, avoid, how.schedule, what.deadline or how.spans)
    ends = [each.latent for each in pulls if not each.avoid]
    if len(ends) > 1:
        raise GuidanceError(f"a search looks for one goal; got {len(ends)} in toward=")
    away = [each.latent.reshape(-1, each.latent.shape[-1]) for each in pulls if each.avoid]
    if guided:
        options = {**options, "pulls": pulls}
    else:
        options = {"menu": UNGUIDED_MENU, **options}
    return write_searched(
        model,
        contexts,
        terminals=ends[0] if ends else None,
        avoid=torch.cat(away) if away else None,
        seeds=seeds,
        config=config,
        **options,
    )
