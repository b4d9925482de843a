"""`steer encode`."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli._models import load_model
from agents.cli._options import JsonOption, LongOption, ModelOption, OverwriteOption, refuse_existing
from agents.cli._output import Output, output
from agents.errors import InputError

if TYPE_CHECKING:
    import numpy as np

COSINES_UP_TO = 12  # texts; a wider table fits no terminal

EXAMPLE = 'steer encode "A fox ran home." "The fox slept." --out vectors.npy'


def encode(
    ctx: typer.Context,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts, each at most one span.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read texts from here, one per line.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the latents as a NumPy file, float32 [n, z].")
    ] = None,
    long: LongOption = "error",
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
        latents = loaded.encode(rows, long=long).numpy()
    if out is not None:
        _save(out, latents)
        say.note(f"float32 {list(latents.shape)} written to {out}")
    config = loaded.latent_config
    if as_json:
        answer = {"model": config.name, "encoder_id": config.encoder_id, "z_dim": config.z_dim, "texts": rows}
        say.json(answer | ({"vectors": latents} if out is None else {"out": out}))
    elif out is None:
        _show_cosines(say, rows, latents)


def _read_lines(path: Path) -> list[str]:
    from steer.text import read_text

    lines = [line for line in read_text(path, "--file").splitlines() if line.strip()]
    if not lines:
        raise InputError(f"--file {path} holds no text; expected one text per line")
    return lines


def _save(path: Path, latents: "np.ndarray") -> None:
    import numpy as np

    from steer.files import write_atomic

    content = io.BytesIO()
    np.save(content, latents)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


def _show_cosines(say: Output, texts: list[str], latents: "np.ndarray") -> None:
    import numpy as np

    norms = np.linalg.norm(latents, axis=1)
    units = latents / np.maximum(norms, 1e-8)[:, None]
    wide = len(texts) if 1 < len(texts) <= COSINES_UP_TO else 0
    cosines = [[f"{value:.2f}" for value in row] for row in units @ units[:wide].T]
    rows = [(i + 1, text.strip()[:60], f"{norms[i]:.2f}", *cosines[i]) for i, text in enumerate(texts)]
    head = ("", "text", "norm", *map(str, range(1, wide + 1)))
    say.table(rows, *head, caption="cosines" if wide else None)
