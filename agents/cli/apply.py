"""`steer apply`."""

from typing import Annotated

import typer

from agents.cli._models import load_model
from agents.cli._options import (
    ContextFileOption,
    ContextOption,
    GuidanceScaleOption,
    JsonOption,
    LongOption,
    ModelOption,
    SeedOption,
    TemperatureOption,
    TopPOption,
    read_context,
)
from agents.cli._output import output
from agents.errors import InputError

EXAMPLE = 'steer apply -c "The sun was out." --from "It was a happy day." --to "It was a sad day."'


def apply(
    ctx: typer.Context,
    context: ContextOption = None,
    context_file: ContextFileOption = None,
    op: Annotated[list[str] | None, typer.Option("--op", help="Lean towards this text; several are averaged.")] = None,
    source: Annotated[
        list[str] | None, typer.Option("--from", help="A text before the change; may be repeated.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--to", help="A text after the change; may be repeated.")] = None,
    strength: Annotated[float, typer.Option("--strength", help="Factor on the change from --from to --to.")] = 1.0,
    weight: Annotated[float, typer.Option("--weight", min=0, max=1, help="Weight of --op.")] = 0.5,
    guidance_scale: GuidanceScaleOption = 1.0,
    temperature: TemperatureOption = 0.7,
    top_p: TopPOption = 0.95,
    long: LongOption = "error",
    seed: SeedOption = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one span from the context's last span, its latent moved.

    What moves it leads from the mean of the --from texts to the mean of the --to texts (BigVAE's apply_op), or is a
    plain pull towards the --op texts.
    """
    say = output(ctx)
    if bool(source) != bool(target):
        raise typer.BadParameter("--from and --to go together: the operation leads from one to the other")
    if bool(op) == bool(source):
        raise typer.BadParameter("give either --op TEXT, or --from TEXT and --to TEXT")
    visible = read_context(context, context_file)
    if not visible.strip():
        raise InputError("the context is empty; apply moves the latent of its last span, so it needs one")
    loaded = load_model(say, model)

    import torch

    from steer.latents.mixing import apply_op, mix, task_vector
    from steer.latents.pull import Pull
    from steer.writing.guided import write_guided
    from steer.writing.sampling import SamplingConfig

    with say.status("writing"):
        start = loaded.encode_ids([loaded.to_ids(visible)[-loaded.span_tokens :]])
        if op:
            pull = Pull(task_vector(loaded.encode(op, long=long)), torch.tensor([weight]))
            moved = mix(start, [pull], 0)
        else:
            before, after = (loaded.encode(texts or [], long=long) for texts in (source, target))
            moved = apply_op(start, before, after, strength)
        written = write_guided(
            loaded,
            [visible],
            pulls=[Pull(moved, torch.ones(1))],
            spans=1,
            seeds=[seed],
            sampling=SamplingConfig(temperature=temperature, top_p=top_p),
            guidance_scale=guidance_scale,
        )[0]
    if not as_json:
        say.result(written.text)
        return
    similarity = torch.nn.functional.cosine_similarity(start, moved).item()
    say.json({"context": visible, "text": written.text, "seed": seed, "similarity_to_start": similarity})
