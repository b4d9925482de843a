"""Guided writing: draft, pull, write, span by span."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Unpack

import torch
from torch import Tensor

from steer.errors import GuidanceError
from steer.latents.mixing import mix
from steer.latents.pull import Pull, arrived, as_pulls
from steer.models.latent_model import LatentModel
from steer.noise import row_seeds
from steer.writing.config import WritingConfig, WritingOptions, writing_config
from steer.writing.context import check_contexts, check_model
from steer.writing.span_texts import blanks_of, span_texts
from steer.writing.writer import Writer, open_writer

Mix = Callable[[Tensor, Sequence[Pull], int], Tensor]


@dataclass(frozen=True)
class Written:
    """What was written in one row.

    Attributes:
        ids: token ids, special tokens included.
        text: the written part alone.
        spans: text of each span.
        latents: `[n, z_dim]`, what each span was written from; zeros where nothing steered.
        drafts: `[n, z_dim]`, the model's own proposals; zeros where none was needed.
        ended: whether the story ended.
        context: the visible token ids that were fed.
    """

    ids: tuple[int, ...] = field(repr=False)
    text: str
    spans: tuple[str, ...] = field(repr=False)
    latents: Tensor = field(repr=False)
    drafts: Tensor = field(repr=False)
    ended: bool = False
    context: tuple[int, ...] = field(default=(), repr=False)


def write_guided(
    model: LatentModel,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    *,
    pulls: Sequence[Pull] | Pull = (),
    seeds: Sequence[int] | int = 0,
    config: WritingConfig | None = None,
    mix: Mix = mix,
    **options: Unpack[WritingOptions],
) -> list[Written]:
    """Write spans in each row, pulled towards latents by their schedules: annealed guidance.

    It is BigVAE's `plan_2` with any schedule. At each span the model drafts its own continuation, the draft's latent is
    mixed with the pulls, and the span is written from the mix. A step at which every weight of a row is zero is written
    unguided; one whose pulls sum to weight one needs no draft and makes none.

    Args:
        contexts: visible text, or token ids, per row. This is all that the model ever sees besides what it writes.
        pulls: latents with schedules of at least as many steps as spans; see `steer.latents.pull.Pull`.
        seeds: one per row, or one from which each row's is derived.
        config: how to write.
        mix: mixes pulls into drafts at a step; `partial(mix, method="slerp")` goes along the sphere, see
            `steer.latents.mixing.mix`.
        **options: fields of `config` to set, such as `spans=4`.

    Raises:
        GuidanceError: a schedule is shorter than the spans, a pull does not fit the model or the rows, or drafts are to
            come from a head that the model has not.
        TextError: a context is not valid Unicode, or one text came where a list is expected.
    """
    written = write_spans(model, contexts, as_pulls(pulls), seeds, writing_config(config, **options), mix)
    while True:
        try:
            next(written)
        except StopIteration as end:
            return end.value


def write_spans(
    model: LatentModel,
    contexts: Sequence[str] | Sequence[Sequence[int]],
    pulls: Sequence[Pull],
    seeds: Sequence[int] | int,
    config: WritingConfig,
    mix: Mix = mix,
) -> Generator[list[str], None, list[Written]]:
    """`write_guided` span by span.

    Yields:
        The text of the span in each row, empty where the story has ended.

    Returns:
        (of the generator) What `write_guided` returns.
    """
    check_model(model)
    check_contexts(contexts)
    check_pulls(pulls, config.spans, model.latent_config.z_dim, len(contexts))
    scales = config.scales()
    writer = open_writer(
        model,
        contexts,
        seeds=row_seeds(seeds, len(contexts)),
        spans=config.spans,
        sampling=config.sampling,
        with_null=bool(pulls) and any(scale != 1 for scale in scales),
        limits=config.limits,
        drafts=config.drafts,
    )
    latents, drafts, blanks = [], [], blanks_of(contexts)
    texts: list[tuple[str, ...]] = []
    for step, scale in enumerate(scales[: config.spans]):
        z, draft = _latents(writer, pulls, step, mix)
        # A row of weight zero is unguided also where its neighbours are not, so that it is written as it would be
        # alone.
        steered = torch.zeros(len(contexts), dtype=torch.bool)
        for pull in pulls:
            steered |= pull.weights[..., step].cpu() > 0
        writer.write(z, guidance_scale=None if scale == 1 else scale, steered=None if bool(steered.all()) else steered)
        latents.append(_where(steered, z, model.latent_config.z_dim))
        drafts.append(_where(steered, draft, model.latent_config.z_dim))
        done = [over or step == config.spans - 1 for over in writer.ended]
        texts = [
            span_texts(model, context, [span.ids for span in written], blank=blank, finished=over)
            for context, written, blank, over in zip(writer.contexts, writer.written, blanks, done, strict=True)
        ]
        yield [row[-1] for row in texts]
        if all(writer.ended):
            break
    latent_rows, draft_rows = torch.stack(latents, dim=1), torch.stack(drafts, dim=1)
    return [
        Written(
            ids=tuple(writer.ids(row)),
            text="".join(texts[row]),
            spans=texts[row],
            latents=latent_rows[row],
            drafts=draft_rows[row],
            ended=writer.ended[row],
            context=tuple(writer.contexts[row]),
        )
        for row in range(writer.rows)
    ]


def check_pulls(pulls: Sequence[Pull], spans: int, z_dim: int, rows: int) -> None:
    """Look whether pulls fit spans, a model and rows.

    Raises:
        GuidanceError: one does not; says what came.
    """
    for pull in pulls:
        steps = pull.weights.shape[-1]
        if steps < spans:
            raise GuidanceError(
                f"a pull's schedule has {steps} steps for {spans} spans; make it with make_schedule(name, {spans})"
            )
        for name, value, width in (("latent", pull.latent, z_dim), ("weights", pull.weights, steps)):
            if value.shape[-1] != width or (value.ndim == 2 and len(value) not in (1, rows)):
                raise GuidanceError(
                    f"a pull's {name} {list(value.shape)} does not fit {rows} rows of width {width}; encode it with "
                    "this model"
                )


def _where(steered: Tensor, z: Tensor | None, z_dim: int) -> Tensor:
    """The latents of steered rows, zeros elsewhere."""
    return torch.zeros(len(steered), z_dim) if z is None else torch.where(steered[:, None], z.cpu(), 0.0)


def _latents(writer: Writer, pulls: Sequence[Pull], step: int, mix: Mix) -> tuple[Tensor | None, Tensor | None]:
    """The latents to write from (None: unguided), and the drafts they were mixed from (None: none were needed)."""
    if not any(bool((pull.weights[..., step] > 0).any()) for pull in pulls):
        return None, None
    alone = arrived(pulls, step)
    if alone is not None:
        return alone.expand(writer.rows, -1), None
    draft = writer.draft()
    return mix(draft, pulls, step), draft
