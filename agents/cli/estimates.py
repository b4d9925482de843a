"""`--dry-run` of `steer train`: what it would take, in parameters, memory, disk and, with `--probe`, time."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli.output import Output

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Tell parameters, tokens, memory and disk, and train nothing.")
]
ProbeOption = Annotated[
    bool, typer.Option("--probe", help="With --dry-run: time some steps, on random weights of the same shapes.")
]


def dry_run(
    say: Output,
    recipe: Any,
    path: Path | None,
    stages: Sequence[str],
    out: Path,
    *,
    with_probe: bool,
    as_json: bool,
) -> None:
    """Estimate the stages of a recipe on the device at hand, and print that."""
    from steer.base import resolve_device
    from steer.training.plan import plan, probe

    device = resolve_device()
    with say.status("counting"):
        estimates = plan(recipe, stages, out, device, path=path)
    measured: dict[str, Any] = {}
    if with_probe:
        for estimate in estimates:
            with say.status(f"running steps of stage {estimate.stage}"):
                measured[estimate.stage] = probe(recipe, estimate.stage, device, path=path)
    show(say, estimates, measured, as_json=as_json)


def warn(say: Output, recipe: Any, path: Path, stages: Sequence[str], out: Path) -> None:
    """Say which stages of a recipe do not fit, before they are tried."""
    from steer.base import resolve_device
    from steer.training.plan import advice, plan

    with say.status("counting"):
        estimates = plan(recipe, stages, out, resolve_device(), path=path)
    for estimate in estimates:
        if not estimate.fits:
            needs = f"about {size(estimate.total)} of memory and {size(sum(estimate.disk.values()))} of disk"
            say.note(f"stage {estimate.stage} needs {needs}, which is not free; try: {'; or '.join(advice(estimate))}")


def dry_run_head(say: Output, model: str | None, head: Any, out: Path, *, as_json: bool) -> None:
    """Estimate a reach head or a draft head for a model folder, and print that."""
    from steer.base import resolve_device
    from steer.checkpoint import fetch, packaged_model
    from steer.training.plan import plan_head

    with say.status("counting"):
        found = plan_head(fetch(model or str(packaged_model())), head, out, resolve_device())
    show(say, [found], {}, as_json=as_json)


def show(say: Output, estimates: Sequence[Any], measured: dict[str, Any], *, as_json: bool) -> None:
    """Print estimates, as tables or as one JSON document."""
    from steer.training.plan import advice

    if as_json:
        say.json(
            {
                estimate.stage: {
                    **dataclasses.asdict(estimate),
                    "total": estimate.total,
                    "fits": estimate.fits,
                    "advice": [] if estimate.fits else advice(estimate),
                    "measured": measured.get(estimate.stage),
                }
                for estimate in estimates
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    for estimate in estimates:
        table = Table("", "", title=f"stage {estimate.stage} on {estimate.device}", show_header=False)
        for name, value in _rows(estimate, measured.get(estimate.stage)):
            table.add_row(name, value)
        Console().print(table)
        if not estimate.fits:
            say.note(f"stage {estimate.stage} does not fit; try: {'; or '.join(advice(estimate))}")


def _rows(estimate: Any, measured: Any) -> list[tuple[str, str]]:
    rows = [("parameters of the base", f"{estimate.parameters:,}"), ("trained parameters", f"{estimate.trained:,}")]
    if estimate.tokens_per_step:
        every = estimate.tokens_per_step * estimate.steps
        learned = f"{estimate.tokens_per_step:,} per step, {every:,} in {estimate.steps:,} steps"
        rows.append(("tokens learned from", learned))
        rows.append(("positions computed", f"{estimate.positions_per_step:,} per step"))
    rows += [(f"memory: {part}", size(taken)) for part, taken in estimate.memory.items()]
    free = "" if estimate.free is None else f" of {size(estimate.free)} free"
    rows.append(("memory, about", f"{size(estimate.total)}{free}"))
    rows += [(f"disk: {part}", size(taken)) for part, taken in estimate.disk.items()]
    rows.append(("disk, about", f"{size(sum(estimate.disk.values()))} of {size(estimate.disk_free)} free"))
    if measured is not None:
        hours = measured.seconds * estimate.steps / 3600
        rows.append(("time, measured", f"{measured.seconds:.2f} s per step, {hours:.1f} h in all, evaluation left out"))
        rows.append(("memory, measured", size(measured.memory)))
    return rows


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**power:
            return f"{count / 2**power:.1f} {unit}"
    return f"{count} B"
