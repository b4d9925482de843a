"""`--dry-run` of `steer train`: what it would take, in parameters, memory, disk and, with `--probe`, time."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.cli._output import Output

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
    from steer.models.base import resolve_device
    from steer.training.estimate.plan import plan, probe

    device = resolve_device()
    with say.status("counting"):
        planned = plan(recipe, stages, out, device, path=path)
    measured: Sequence[Any] = [None] * len(planned)
    if with_probe:
        with say.status("running some steps of each stage"):
            measured = probe(planned, device)
    show(say, [each.estimate for each in planned], measured, as_json=as_json)


def warn(say: Output, recipe: Any, path: Path, stages: Sequence[str], out: Path) -> None:
    """Say which stages of a recipe do not fit, before they are tried."""
    from steer.models.base import resolve_device
    from steer.training.estimate.plan import advice, plan

    with say.status("counting"):
        estimates = [each.estimate for each in plan(recipe, stages, out, resolve_device(), path=path)]
    for estimate in estimates:
        if not estimate.fits:
            needs = f"about {size(estimate.total)} of memory and {size(sum(estimate.disk.values()))} of disk"
            say.note(f"stage {estimate.stage} needs {needs}, which is not free; try: {'; or '.join(advice(estimate))}")


def dry_run_head(say: Output, model: str | None, kind: Any, recipe: Any, out: Path, *, as_json: bool) -> None:
    """Estimate a reach head or a draft head for a model folder, and print that."""
    from steer.models.base import resolve_device
    from steer.models.checkpoint import fetch, packaged_model
    from steer.training.estimate.plan import plan_head

    with say.status("counting"):
        found = plan_head(fetch(model or str(packaged_model())), kind, recipe, out, resolve_device())
    show(say, [found], [None], as_json=as_json)


def show(say: Output, estimates: Sequence[Any], measured: Sequence[Any], *, as_json: bool) -> None:
    """Print estimates and what was measured of each, as tables or as one JSON document."""
    from steer.training.estimate.plan import advice

    pairs = list(zip(estimates, measured, strict=True))
    if as_json:
        say.json(_document(pairs))
        return
    for estimate, found in pairs:
        where = f"stage {estimate.stage}" + (f" of {estimate.before}" if estimate.before else "")
        say.table(_rows(estimate, found), title=f"{where} on {estimate.device}", show_header=False)
        if not estimate.fits:
            say.note(f"{where} does not fit; try: {'; or '.join(advice(estimate))}")
    hours = [found.seconds * estimate.steps / 3600 for estimate, found in pairs if found is not None]
    if len(hours) > 1:
        say.note(f"all measured stages: {sum(hours):.1f} h, evaluation left out")


def _document(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Estimates by stage; of recipes that are continued in `before`, by their files' names."""
    from steer.training.estimate.plan import advice

    document: dict[str, Any] = {}
    for estimate, found in pairs:
        fields = dataclasses.asdict(estimate)
        before = fields.pop("before")
        target = document if before is None else document.setdefault("before", {}).setdefault(before, {})
        target[estimate.stage] = {
            **fields,
            "total": estimate.total,
            "fits": estimate.fits,
            "advice": [] if estimate.fits else advice(estimate),
            "measured": found,
        }
    return document


def _rows(estimate: Any, measured: Any) -> list[tuple[str, str]]:
    rows = [
        ("parameters of the base", f"{estimate.parameters:,}"),
        ("trained parameters", f"{estimate.trained:,}"),
    ]
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
