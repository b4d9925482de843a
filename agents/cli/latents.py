"""`steer encode` and `steer apply`: latents on their own."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli.guard import InputError
from agents.cli.models import (
    JsonOption,
    ModelOption,
    OverwriteOption,
    SeedOption,
    load_model,
    read_context,
    refuse_existing,
)
from agents.cli.output import output
from agents.cli.writing import Long, LongOption, ScaleOption, TemperatureOption, TopPOption

COSINES_UP_TO = 12  # texts; a wider table fits no terminal


def encode(
    ctx: typer.Context,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts, each at most one span.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read texts from here, one per line.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the latents as a NumPy file, float32 [n, z].")
    ] = None,
    long: LongOption = Long.ERROR,
    model: ModelOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode texts to latents.

    Without --out or --json, prints how alike the texts are: the cosines of their latents.
    """
    say = output(ctx)
    rows = list(texts or []) + (_read_lines(file) if file is not None else [])
    if not rows:
        raise typer.BadParameter("give at least one TEXT, or --file FILE with one text per line")
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    loaded = load_model(say, model)
    with say.status(f"encoding {len(rows)} texts"):
        latents = loaded.encode(rows, long=long.value).numpy()
    if out is not None:
        _save(out, latents)
        say.note(f"float32 {list(latents.shape)} written to {out}")
    config = loaded.latent_config
    if as_json:
        answer = {"model": config.name, "encoder_id": config.encoder_id, "z_dim": config.z_dim, "texts": rows}
        say.json(answer | ({"vectors": latents} if out is None else {"out": out}))
    elif out is None:
        _show_cosines(rows, latents)


def apply(
    ctx: typer.Context,
    context: Annotated[str | None, typer.Option("--context", "-c", help="The visible text to continue.")] = None,
    context_file: Annotated[
        Path | None, typer.Option("--context-file", help="Read it from a UTF-8 file; - is standard input.")
    ] = None,
    op: Annotated[list[str] | None, typer.Option("--op", help="Lean towards this text; several are averaged.")] = None,
    source: Annotated[
        list[str] | None, typer.Option("--from", help="A text before the change; may be repeated.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--to", help="A text after the change; may be repeated.")] = None,
    strength: Annotated[float, typer.Option("--strength", help="Factor on the change from --from to --to.")] = 1.0,
    weight: Annotated[float, typer.Option("--weight", min=0, max=1, help="Weight of --op.")] = 0.5,
    scale: ScaleOption = 1.0,
    temperature: TemperatureOption = 0.7,
    top_p: TopPOption = 0.95,
    long: LongOption = Long.ERROR,
    seed: SeedOption = 0,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one span from the context's last span, its latent moved by an operation.

    The operation is what leads from the mean of the --from texts to the mean of the --to texts (BigVAE's apply_op),
    or a plain pull towards the --op texts.
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
            pull = Pull(task_vector(loaded.encode(op, long=long.value)), torch.tensor([weight]))
            moved = mix(start, [pull], 0)
        else:
            before, after = (loaded.encode(texts, long=long.value) for texts in (source, target))
            moved = apply_op(start, before, after, strength)
        written = write_guided(
            loaded,
            [visible],
            pulls=[Pull(moved, torch.ones(1))],
            spans=1,
            seeds=[seed],
            sampling=SamplingConfig(temperature=temperature, top_p=top_p),
            scale=scale,
        )[0]
    if not as_json:
        say.result(written.text)
        return
    similarity = torch.nn.functional.cosine_similarity(start, moved).item()
    say.json({"context": visible, "text": written.text, "seed": seed, "similarity_to_start": similarity})


def _read_lines(path: Path) -> list[str]:
    from steer.text import read_text

    lines = [line for line in read_text(path, "--file").splitlines() if line.strip()]
    if not lines:
        raise InputError(f"--file {path} holds no text; expected one text per line")
    return lines


def _save(path: Path, latents: Any) -> None:
    """Write beside the target and rename, so that a full disk leaves no half a file under its name."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    try:
        with part.open("wb") as file:
            np.save(file, latents)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _show_cosines(texts: list[str], latents: Any) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    norms = np.linalg.norm(latents, axis=1)
    units = latents / np.maximum(norms, 1e-8)[:, None]
    wide = len(texts) if 1 < len(texts) <= COSINES_UP_TO else 0
    table = Table("", "text", "norm", *map(str, range(1, wide + 1)), caption="cosines" if wide else None)
    for row, text in enumerate(texts):
        cosines = [f"{value:.2f}" for value in units[row] @ units[:wide].T] if wide else []
        table.add_row(str(row + 1), Text(text.strip()[:60]), f"{norms[row]:.2f}", *cosines)
    Console().print(table)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(epilog='Example: steer encode "A fox ran home." "The fox slept." --out vectors.npy')(encode)
    example = 'Example: steer apply -c "The sun was out." --from "It was a happy day." --to "It was a sad day."'
    app.command(epilog=example)(apply)
