"""The arm `vectors`: activation steering, a rival from outside that needs no latent; see `steer.writing.activation`."""

import torch

from agents.experiments.options import VectorOptions
from agents.experiments.task import Sample, Task
from steer.writing.activation import control_vector, mean_residuals, middle_layer, steered, unguided_path
from steer.writing.writer import Writer, open_writer


def write_by_vectors(task: Task, options: VectorOptions) -> list[Sample]:
    """Add a vector per pair to one layer, at every position behind the context.

    The text is written as `unguided` writes it, by the same weights with the same noise: strength 0 is that arm bit for
    bit, and whatever differs is the vector's doing. It leads from the mean of the other pairs' terminals to the pair's
    own.
    """
    model, path = task.model, unguided_path(task.model)
    layer = middle_layer(path) if options.layer is None else options.layer
    known = tuple(dict.fromkeys(pair.terminal for pair in task.every))
    # Of all pairs, whichever are written together, so that a text depends on its own pair alone.
    means, norm = model.derived(("mean_residuals", layer, known), lambda: mean_residuals(model, known, layer))
    own = [known.index(pair.terminal) for pair in task.pairs]
    vectors = [control_vector(means[i][None], torch.cat([means[:i], means[i + 1 :]]), norm=norm) for i in own]
    contexts = [model.to_ids(pair.context) for pair in task.pairs]
    writer = open_writer(model, contexts, seeds=task.seeds, spans=task.spans, sampling=task.sampling)
    with steered(path, torch.cat(vectors), layer, options.strength):
        for _ in range(task.spans):
            writer.write(None)
            if all(writer.ended):
                break
    return [_sample(writer, row) for row in range(writer.rows)]


def _sample(writer: Writer, row: int) -> Sample:
    to_text, ids = writer.model.to_text, tuple(writer.ids(row))
    spans = tuple(to_text(span.ids) for span in writer.written[row])
    return Sample(to_text(ids), spans, ids, writer.ended[row], len(ids), 0)
