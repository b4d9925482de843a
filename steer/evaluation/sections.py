"""Figures in words: what `steer eval` prints and a model card shows, by section."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CAPTION = "Shares are given with their 95 % intervals, NLL in nats per token."

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """Lines that belong together.

    Attributes:
        title: what they are about.
        about: how much was measured, and how.
        rows: what was measured, and its value or values.
    """

    title: str
    about: str
    rows: Rows


def figure_sections(figures: Mapping[str, Any]) -> list[Section]:
    """The figures of `steer.evaluation.evaluate.evaluate` in words; what is not among them is left out."""
    sections = [
        Section("Latents", "of unseen spans", _latents(figures.get("latents", {}))),
        *quality_sections(figures),
        Section("Reach head", "beside it the bare cosine", _reach(figures.get("reach", {}))),
        Section("Draft head", "cosine with what follows", _prior(figures.get("prior", {}))),
    ]
    if "endings" in figures:
        sections.append(_endings(figures["endings"]))
    return [section for section in sections if section.rows]


def quality_sections(figures: Mapping[str, Any]) -> list[Section]:
    """The figures of this package among those of `steer.evaluation.evaluate.evaluate`, in words."""
    quality = figures.get("quality", {})
    parts = [
        ("reconstruction", _reconstruction),
        ("bound", _bound),
        ("paths", _paths),
        ("averages", _averages),
        ("contexts", _contexts),
    ]
    plays = [_plays(figures["plays"])] if "plays" in figures else []
    return [write(quality[name]) for name, write in parts if name in quality] + plays


def _latents(found: Mapping[str, Any]) -> Rows:
    arms = ("own", "null", "wrong")
    return _present(
        _row(found, "NLL in context: own / null / wrong latent", [f"nll_{arm}" for arm in arms]),
        _row(found, "NLL without context", [f"alone_{arm}" for arm in arms]),
        _row(found, "right next tokens: in context / without", ["accuracy", "alone_accuracy"], ".1%"),
        _row(found, "KL divergence, nats per span", ["kl"], ".0f"),
        _row(found, "active units", ["active_units"], ".0f"),
        _row(found, "norm of a latent", ["latent_norm"], ".1f"),
    )


def _reach(found: Mapping[str, Any]) -> Rows:
    both = {f"{kind} {name}": value for kind in ("reach", "cosine") for name, value in found.get(kind, {}).items()}
    told = found.get("told", {})
    names = {
        "auc_other": "AUC, another story's: head / cosine",
        "auc_rival": "AUC, with a shared name: head / cosine",
        "auc_earlier": "AUC, told before: head / cosine",
        "order": "nearer or farther: head / cosine",
    }
    return _present(
        *(_row(both, text, [f"reach {name}", f"cosine {name}"], ".3f") for name, text in names.items()),
        _row(found.get("calibration", {}), "expected calibration error", ["ece"], ".3f"),
        _row(told, "told, and found told: head / cosine", ["recall", "recall_cosine"], ".1%"),
        _row(told, "found told in others: any / shared name", ["alarms_other", "alarms_rival"], ".2%"),
        _row(told, "least cosine where text is pulled", ["pulled_similarity"]),
    )


def _prior(found: Mapping[str, Any]) -> Rows:
    ways = ("mean", "drawn", "written", "nothing")
    return _present(
        _row(found.get("cosine", {}), "head's mean / drawn / written / nothing", ways),
        _row(found, "NLL of a latent's numbers: head / marginal", ["nll", "nll_marginal"]),
    )


def _reconstruction(found: Mapping[str, Any]) -> Section:
    rows = []
    for role in ("router", "decoder"):
        if part := found.get(role):
            rows += [
                (f"{role}: BLEU-4, 0 to 1", f"{part['bleu']:.3f}"),
                (f"{role}: nearest to its own span", _share(part["nearest"])),
                _row(part, f"{role}: cosine with its own / another span", ["similarity", "unrelated"]),
            ]
    return Section("Reconstruction", f"{found['spans']} spans, from latents alone", _present(*rows))


def _bound(found: Mapping[str, Any]) -> Section:
    rows = _present(
        _row(found, "ELBO", ["elbo"]),
        _row(found, f"importance-weighted, {found['samples']} samples", ["importance"]),
        _row(found, "ELBO in parts: NLL / KL divergence", ["noisy_nll", "kl"]),
        _row(found, "bare base without a latent", ["base_nll"]),
    )
    return Section("Likelihood", f"bounds on the NLL of {found['spans']} spans", rows)


def _paths(found: Mapping[str, Any]) -> Section:
    rows = (
        ("t", " / ".join(f"{t:g}" for t in found["t"])),
        ("cosine with A", _many(found["to_a"])),
        ("cosine with B", _many(found["to_b"])),
        ("cosine of A and B", f"{found['unrelated']:.2f}"),
        ("base NLL", _many(found["base_nll"])),
        ("cosine with B never falls on the way", _share(found["rises"])),
        ("cosine with A never rises", _share(found["falls"])),
        ("rank correlation of t and cosine with B", f"{found['spearman']:.2f}"),
        ("as fluent as the less fluent end", _share(found["as_fluent"])),
        (f"different texts of {len(found['t'])}", f"{found['distinct']:.1f}"),
    )
    return Section("Interpolation", f"{found['paths']} lines from A to B", rows)


def _averages(found: Mapping[str, Any]) -> Section:
    rows = []
    for size, kinds in found["sizes"].items():
        one, mixed = kinds["one_story"], kinds.get("mixed")
        what = "1 span" if size == "1" else f"{size} of a story"
        rows += [
            (f"{what}: nearest to what was averaged", _share(one["own"])),
            (f"{what}: nearest to the story's rest", _share(one["rest"])),
        ]
        if mixed is None:
            rows.append((f"{what}: base NLL", f"{one['base_nll']:.2f}"))
        else:
            rows += [
                (f"{size} of {size} stories: nearest to them", _share(mixed["own"])),
                (f"{size}, one story / several: base NLL", f"{one['base_nll']:.2f} / {mixed['base_nll']:.2f}"),
            ]
    return Section("Averages", f"told apart among {found['stories']} stories", tuple(rows))


def _contexts(found: Mapping[str, Any]) -> Section:
    rows = _present(
        ("nearest to its own sentence", _share(found["nearest"])),
        ("likelier in its own context", _share(found["fits"])),
        _row(found, "base NLL: own / other context", ["base_nll", "swapped_nll"]),
        ("names someone of its own context only", _share(found["named"])),
        ("names someone of the other context only", _share(found["other_named"])),
        ("the two texts differ", _share(found["differ"])),
    )
    return Section("Two contexts", f"{found['sentences']} sentences in two stories", rows)


def _plays(found: Mapping[str, Any]) -> Section:
    rows = (
        ("base NLL of the plays' lines", f"{found['base_nll']:.2f}"),
        ("written lines that end within two spans", _share(found["ends"])),
        ("written lines that are speech", _share(found["speech"])),
        ("the plays' own lines that are speech", _share(found["own_speech"])),
    )
    return Section("Plays", f"{found['lines']} lines `Name: ...`, unguided", rows)


def _endings(found: Mapping[str, Any]) -> Section:
    rows = []
    for arm, part in found["arms"].items():
        rows += [
            (f"{arm}: nearest to its goal", _share(part["nearest"])),
            (f"{arm}: among the nearest five", _share(part["nearest_five"])),
            (f"{arm}: base NLL", f"{part['base_nll']:.2f}"),
        ]
    among = f" among {found['among']}" if "among" in found else ""
    about = f"{found['pairs']} pairs{among}, {found['spans']} spans, temperature {found['temperature']}"
    return Section("Endings", about, tuple(rows))


def _row(found: Mapping[str, Any], measure: str, names: Sequence[str], form: str = ".2f") -> tuple[str, str] | None:
    values = [found.get(name) for name in names]
    if all(value is None for value in values):
        return None
    return measure, _many(values, form)


def _present(*rows: tuple[str, str] | None) -> Rows:
    return tuple(row for row in rows if row is not None)


def _many(values: Sequence[float | None], form: str = ".2f") -> str:
    return " / ".join("-" if value is None or math.isnan(value) else format(value, form) for value in values)


def _share(found: Sequence[float] | None) -> str:
    if found is None or None in found or math.isnan(found[0]):
        return "-"
    share, low, high = found
    return f"{share:.0%} ({low:.0%} to {high:.0%})"
