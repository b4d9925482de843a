"""Arms: the ways of writing that an experiment compares, as plain functions of one signature.

An arm is `write(task, options) -> samples`, one sample per pair of the task. The class that annotates `options` says
which keys an arm of this method takes in the experiment's file, so a new arm is a function and a line in `ARMS`. All
arms get the same contexts, terminals and seeds; what they do with them is their own.
"""

import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from agents.experiments.options import (
    AnnealedOptions,
    FixedOptions,
    GuidedSearchOptions,
    MenuItem,
    Options,
    PromptedOptions,
    SearchOptions,
    VoiceOptions,
    WaypointOptions,
)
from agents.experiments.task import Sample, Task
from agents.experiments.vectors import write_by_vectors
from steer.latents.mixing import task_vector
from steer.latents.pull import Pull
from steer.latents.schedules import ScheduleConfig
from steer.latents.waypoints import waypoint_pulls
from steer.writing.guided import write_guided
from steer.writing.proposals import Drafts


def write_unguided(task: Task, options: Options) -> list[Sample]:
    """Continue each context, towards nothing."""
    return _guided(task, [pair.context for pair in task.pairs], [], 1.0)


def write_fixed(task: Task, options: FixedOptions) -> list[Sample]:
    """Pull with the same weight at every span."""
    return _pulled(task, ScheduleConfig("constant", options.start), options.scale, options.drafts)


def write_annealed(task: Task, options: AnnealedOptions) -> list[Sample]:
    """Pull by a schedule; the default, a bridge, arrives with the last span."""
    return _pulled(task, options.config(), options.scale, options.drafts)


def write_prompted(task: Task, options: PromptedOptions) -> list[Sample]:
    """Tell the goal in the visible text, before the context, and continue unguided: the diegetic control.

    Where both do not fit the model's context, the beginning of the pair's context gives way, never the goal. Measures
    score the text behind the context alone, as in all arms.
    """
    limit, rows = task.model.latent_config.max_context, []
    for pair in task.pairs:
        told = task.model.to_ids(options.told.replace("{terminal}", pair.terminal))
        context = task.model.to_ids(pair.context)
        rows.append((told + context[max(0, len(told) + len(context) - limit) :])[:limit])
    return _guided(task, rows, [], 1.0)


def write_searched(task: Task, options: SearchOptions) -> list[Sample]:
    """Search over unguided continuations."""
    return _searched(task, options.policy, options.policy_options, [MenuItem(strength=0.0)], ScheduleConfig())


def write_searched_guided(task: Task, options: GuidedSearchOptions) -> list[Sample]:
    """Search over continuations that are pulled as hard as the menu says."""
    return _searched(task, options.policy, options.policy_options, options.menu, options.config(), options.drafts)


def write_in_voice(task: Task, options: VoiceOptions) -> list[Sample]:
    """Lean towards a task vector, the mean latent of sample texts, at every span; and to the terminal by a schedule.

    The voice has what the terminal leaves of a draft, as in scenarios. A constant schedule of 0.10 beside a weight of
    0.15 is BigVAE's topic mix (`steer.latents.bigvae.topic_sentence`), no goal and 0.15 its task mix.
    """
    model, samples = task.model, options.samples
    voice = model.derived(("task_vector", samples), lambda: task_vector(model.encode(samples, long="mean")))
    weights = options.config().weights(task.spans) if options.goal else torch.zeros(task.spans)
    pulls = [Pull(voice, (1 - weights).clamp(0, options.weight))]
    pulls += [Pull(task.terminals(), weights)] if options.goal else []
    return _guided(
        task,
        [pair.context for pair in task.pairs],
        pulls,
        options.scale,
        encodes=int(options.goal),
        drafts=options.drafts,
    )


def write_by_waypoints(task: Task, options: WaypointOptions) -> list[Sample]:
    """Pull as `annealed` does, by way of stored passages: a plan for each pair, made before anything is written."""
    from agents.index.build import open_index
    from agents.index.roadmap import Roadmap

    terminals = task.terminals()
    states = task.model.encode_ids([task.model.to_ids(pair.context)[-task.model.span_tokens :] for pair in task.pairs])
    with open_index(options.store, task.model) as store:
        roadmap = Roadmap(store, getattr(task.model, "reach", None))
        routes = [
            roadmap.plan(state, terminal, spans=task.spans, count=options.count)
            for state, terminal in zip(states.numpy(), terminals.numpy(), strict=True)
        ]
    weights = options.config().weights(task.spans)
    latents = [torch.from_numpy(route.vectors) for route in routes]
    pulls = [Pull(terminals, weights), *waypoint_pulls(latents, weights, strength=options.strength)]
    samples = _guided(
        task, [pair.context for pair in task.pairs], pulls, options.scale, encodes=2, drafts=options.drafts
    )
    plans = [{"waypoints": [w.text for w in route.waypoints], "direct": route.direct} for route in routes]
    return [replace(sample, details=plan) for sample, plan in zip(samples, plans, strict=True)]


ARMS: dict[str, Callable[[Task, Any], list[Sample]]] = {
    "unguided": write_unguided,
    "fixed": write_fixed,
    "annealed": write_annealed,
    "prompted": write_prompted,
    "search": write_searched,
    "guided-search": write_searched_guided,
    "waypoints": write_by_waypoints,
    "voice": write_in_voice,
    "vectors": write_by_vectors,
}


def options_of(method: str) -> type[Options]:
    """The options that a method takes, as its function annotates them; none where it does not."""
    return typing.get_type_hints(ARMS[method]).get("options", Options)


def _pulled(task: Task, schedule: ScheduleConfig, scale: float, drafts: Drafts) -> list[Sample]:
    pull = Pull(task.terminals(), schedule.weights(task.spans))
    return _guided(task, [pair.context for pair in task.pairs], [pull], scale, encodes=1, drafts=drafts)


def _guided(
    task: Task,
    contexts: list[Any],
    pulls: Sequence[Pull],
    scale: float,
    encodes: int = 0,
    drafts: Drafts = "write",
) -> list[Sample]:
    rows = write_guided(
        task.model,
        contexts,
        pulls=pulls,
        spans=task.spans,
        seeds=list(task.seeds),
        sampling=task.sampling,
        guidance_scale=scale,
        drafts=drafts,
    )
    size, samples = task.model.span_tokens, []
    for row in rows:
        # Drafts that were made for other rows after this one's story had ended are not its cost. A draft takes an
        # encoding in either way: of what was written for it, or of what is visible last.
        count = int((row.drafts[: math.ceil(len(row.ids) / size)] != 0).any(dim=1).sum())
        tokens = len(row.ids) + (count * size if drafts == "write" else 0)
        samples.append(Sample(row.text, row.spans, row.ids, row.ended, tokens, encodes + count))
    return samples


def _searched(
    task: Task,
    policy: str,
    policy_options: Mapping[str, Any],
    menu: Sequence[MenuItem],
    schedule: ScheduleConfig,
    drafts: Drafts = "write",
) -> list[Sample]:
    from steer.search.budget import Budget
    from steer.search.searched import write_searched

    assert task.budget is not None  # the file's reader sees to it
    rows = write_searched(
        task.model,
        [pair.context for pair in task.pairs],
        terminals=task.terminals(),
        spans=task.spans,
        policy=policy,
        policy_options=policy_options,
        budget=Budget(tokens=round(task.budget * task.plain_tokens)),
        seeds=list(task.seeds),
        sampling=task.sampling,
        menu=[item.action() for item in menu],
        schedule=schedule,
        rewards=task.rewards,
        drafts=drafts,
    )
    samples = []
    for row in rows:
        details = {"status": row.status, "finished": row.finished, "nodes": row.spent.nodes, "value": row.value}
        # Each span that was generated, a draft or a node, is encoded once; and the terminal. A draft by head encodes
        # what is visible last.
        encodes = 1 + row.spent.tokens // task.model.span_tokens
        if drafts == "head":
            encodes += int((row.tree.has_draft & (row.tree.root == row.tree.root[row.node])).sum())
        details["components"] = dict(row.components)
        samples.append(Sample(row.text, row.spans, row.ids, row.ended, row.spent.tokens, encodes, details=details))
    return samples
