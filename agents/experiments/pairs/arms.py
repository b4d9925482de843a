"""Arms: the ways of writing that an experiment compares, as plain functions of one signature.

An arm is `write(task, options) -> samples`, one sample per pair of the task. The class that annotates `options` says
which keys an arm of this method takes in the experiment's file, so a new arm is a function and a line in `ARMS`. All
arms get the same contexts, terminals and seeds; what they do with them is their own.
"""

import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from agents.experiments.pairs.options import (
    AnnealedOptions,
    FixedOptions,
    GuidedSearchOptions,
    Options,
    PromptedOptions,
    PullOptions,
    SearchOptions,
    VectorOptions,
    VoiceOptions,
    WaypointOptions,
)
from agents.experiments.pairs.writing import Sample, Task, write_best, write_pulled
from steer.latents.mixing import task_vector
from steer.latents.pull import Pull
from steer.latents.waypoints import waypoint_pulls
from steer.writing.span_texts import span_texts


def write_unguided(task: Task, options: Options) -> list[Sample]:
    """Continue each context, towards nothing."""
    return write_pulled(task, [], options.writing(task.config))


def write_fixed(task: Task, options: FixedOptions) -> list[Sample]:
    """Pull with the same weight at every span."""
    return _write_towards(task, options)


def write_annealed(task: Task, options: AnnealedOptions) -> list[Sample]:
    """Pull by a schedule; the default, a bridge, arrives with the last span."""
    return _write_towards(task, options)


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
    return write_pulled(task, [], options.writing(task.config), contexts=rows)


def write_searched(task: Task, options: SearchOptions) -> list[Sample]:
    """Search over unguided continuations."""
    return write_best(task, options.writing(task.config), options.search(task))


def write_searched_guided(task: Task, options: GuidedSearchOptions) -> list[Sample]:
    """Search over continuations that are pulled as hard as the menu says."""
    return write_best(task, options.writing(task.config), options.search(task))


def write_in_voice(task: Task, options: VoiceOptions) -> list[Sample]:
    """Lean towards a task vector, the mean latent of sample texts, at every span; and to the terminal by a schedule.

    The voice has what the terminal leaves of a draft, as in scenarios. A constant schedule of 0.10 beside a weight of
    0.15 is BigVAE's topic mix (`steer.latents.bigvae.topic_sentence`), no goal and 0.15 its task mix.
    """
    model, samples = task.model, options.samples
    voice = model.cached(("task_vector", samples), lambda: task_vector(model.encode(samples, long="mean")))
    weights = options.schedule_config().weights(task.spans) if options.goal else torch.zeros(task.spans)
    pulls = [Pull(voice, (1 - weights).clamp(0, options.weight))]
    pulls += [Pull(task.terminals(), weights)] if options.goal else []
    return write_pulled(task, pulls, options.writing(task.config), encodes=int(options.goal))


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
    weights = options.schedule_config().weights(task.spans)
    latents = [torch.from_numpy(route.vectors) for route in routes]
    pulls = [Pull(terminals, weights), *waypoint_pulls(latents, weights, strength=options.strength)]
    samples = write_pulled(task, pulls, options.writing(task.config), encodes=2)
    plans = [{"waypoints": [w.text for w in route.waypoints], "direct": route.direct} for route in routes]
    return [replace(sample, details=plan) for sample, plan in zip(samples, plans, strict=True)]


def write_by_vectors(task: Task, options: VectorOptions) -> list[Sample]:
    """Add a vector per pair to one layer, at every position behind the context: activation steering, without latents.

    The text is written as `unguided` writes it, by the same weights with the same noise: strength 0 is that arm bit for
    bit, and whatever differs is the vector's doing. It leads from the mean of the other pairs' terminals to the pair's
    own.
    """
    from steer.writing.activation import control_vector, mean_residuals, middle_layer, steered, unguided_path
    from steer.writing.writer import open_writer

    model, path = task.model, unguided_path(task.model)
    layer = middle_layer(path) if options.layer is None else options.layer
    known = tuple(dict.fromkeys(pair.terminal for pair in task.every))
    # Of all pairs, whichever are written together, so that a text depends on its own pair alone.
    means, norm = model.cached(("mean_residuals", layer, known), lambda: mean_residuals(model, known, layer))
    own = [known.index(pair.terminal) for pair in task.pairs]
    vectors = [control_vector(means[i][None], torch.cat([means[:i], means[i + 1 :]]), norm=norm) for i in own]
    contexts = [model.to_ids(pair.context) for pair in task.pairs]
    writer = open_writer(model, contexts, seeds=task.seeds, spans=task.spans, sampling=task.config.sampling)
    with steered(path, torch.cat(vectors), layer, options.strength):
        for _ in range(task.spans):
            writer.write(None)
            if all(writer.ended):
                break
    samples = []
    for row in range(writer.rows):
        ids = tuple(writer.ids(row))
        spans = span_texts(model, writer.contexts[row], [span.ids for span in writer.written[row]])
        samples.append(Sample("".join(spans), spans, ids, writer.ended[row], len(ids), 0))
    return samples


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


def _write_towards(task: Task, options: PullOptions) -> list[Sample]:
    """Pull each text to its terminal by the schedule of the options."""
    config = options.writing(task.config)
    return write_pulled(task, [Pull(task.terminals(), config.schedule.weights(task.spans))], config, encodes=1)
