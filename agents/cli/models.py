"""`steer models`: which models are packaged, which bases can be had, and where they are."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli._models import quiet_libraries
from agents.cli._options import JsonOption
from agents.cli._output import output
from agents.errors import InputError


def list_models(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List the packaged models and the bases that can be had."""
    say = output(ctx)
    rows = _rows()
    if as_json:
        say.json({"models": rows})
        return
    for row in rows:
        where = row["folder"] or f"not here; get it: steer models get {row['name']} ({row['download'] / 1e6:.0f} MB)"
        say.result(
            f"{row['name']}  {row['what']}; {row['parameters'] / 1e6:.1f} M parameters; licence: {row['license']}"
        )
        say.result(f"    {where}")


def get(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a base, see `steer models list`.")],
) -> None:
    """Download a base with pip, check its hash, and convert it; nothing is done where it is there already."""
    from steer.models.sources import CONVERTED_BYTES_A_PARAMETER, find_base, get_base

    say = output(ctx)
    known = _known(name)
    if (folder := find_base(known)) is None:
        need = known.parameters * CONVERTED_BYTES_A_PARAMETER
        say.note(f"{known.about}; {known.license}; {known.download / 1e6:.0f} MB to load, {need / 1e6:.0f} MB on disk")
        quiet_libraries(say)
        with say.status(f"getting {name}"):
            folder = get_base(known)
    say.result(str(folder))


def where(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a packaged model or a base.")],
) -> None:
    """Print the folder of a packaged model, or of a base that is on this machine."""
    say = output(ctx)
    for row in _rows():
        if row["name"] == name and row["folder"]:
            say.result(str(row["folder"]))
            return
    _known(name)
    raise InputError(f"{name} is not on this machine; get it with: steer models get {name}")


def _known(name: str) -> Any:
    from steer.models.sources import KNOWN_BASES

    if name not in KNOWN_BASES:
        names = ", ".join(KNOWN_BASES)
        raise InputError(f"there is no base {name!r} to get; expected {names}; see: steer models list")
    return KNOWN_BASES[name]


def _rows() -> list[dict[str, Any]]:
    from steer.models.checkpoint import packaged_models
    from steer.models.config import LatentConfig
    from steer.models.sources import KNOWN_BASES, find_base

    rows: list[dict[str, Any]] = []
    for folder in packaged_models():
        config = LatentConfig.load(folder)
        rows.append(
            {
                "name": folder.name,
                "what": f"latent model on {'a base of its own' if config.base.name == 'base' else config.base.name}",
                "parameters": _parameters(folder),
                "license": _license(folder),
                "download": 0,
                "folder": folder,
            }
        )
    for known in KNOWN_BASES.values():
        rows.append(
            {
                "name": known.name,
                "what": f"base: {known.about}",
                "parameters": known.parameters,
                "license": known.license,
                "download": known.download,
                "folder": find_base(known),
            }
        )
    return rows


def _parameters(folder: Path) -> int:
    """Numbers in a folder's safetensors, by their headers."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "np") as file:
            total += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())
    return total


def _license(folder: Path) -> str:
    """As the model card's head says it."""
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "not said")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="List models, get a base, and say where it is.")
    group.command("list", epilog="Example: steer models list")(list_models)
    group.command(epilog="Example: steer models get smollm2-135m")(get)
    group.command(epilog="Example: steer models where llama-fable-6m")(where)
    app.add_typer(group, name="models")
