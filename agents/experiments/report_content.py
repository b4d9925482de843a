"""What stands in the report of a finished run, gathered from the files that it left; nothing is computed anew."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.errors import RunDamaged, RunNotFound
from agents.experiments.folder import RESULTS, SAMPLES
from agents.experiments.manifest import EXPERIMENT, MANIFEST, ExperimentManifest, RunManifest, read_run
from agents.experiments.report_page import listed
from agents.experiments.results import HEADLINE, Results
from agents.experiments.run_results import TestedPair
from agents.experiments.tables import show
from steer.data.pairs import Pair

PAIRS_SHOWN = 10
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class ArmText:
    """What one arm wrote for a pair.

    Attributes:
        arm: name of the variant.
        text: the written part.
        facts: its numbers, in a few words.
    """

    arm: str
    text: str
    facts: str


@dataclass(frozen=True)
class Report:
    """What stands in a report.

    Attributes:
        results, manifest: of the run.
        settings: the experiment's file.
        samples: the first pairs, and what each arm wrote for them with the first seed.
    """

    results: Results
    manifest: ExperimentManifest
    settings: str
    samples: tuple[tuple[Pair, tuple[ArmText, ...]], ...]


def read_report(run: Path) -> Report:
    """Gather what stands in the report of a finished run.

    Raises:
        RunNotFound, RunDamaged: see `agents.experiments.report.write_report`.
    """
    try:
        manifest, pairs = read_run(run)
        settings = (run / EXPERIMENT).read_text(encoding="utf-8")
    except OSError as error:
        missing = Path(error.filename or MANIFEST).name
        raise RunNotFound(
            f"{run} holds no run of an experiment ({missing}: {error.strerror}); expected the --out of steer experiment"
        ) from error
    results = Results.load(run / RESULTS)
    return Report(results, manifest, settings, _read_samples(run / SAMPLES, results, pairs[:PAIRS_SHOWN]))


def findings(results: Results) -> list[str]:
    """What the results say, in sentences; controls that tell the goal are left out."""
    if not results.judged:
        return ["Endings were not judged: the judge was not installed when the run was measured."]
    reference = next(arm for arm in results.arms if arm.name == results.reference)
    arms = [arm for arm in results.arms if arm is reference or not arm.diegetic]
    best = max(arms, key=lambda arm: arm.measures[HEADLINE].mean)
    said = [
        f"The right terminal was nearest most often with {best.name}: {show(best.measures[HEADLINE], HEADLINE)}; with "
        f"the reference {reference.name}: {show(reference.measures[HEADLINE], HEADLINE)}."
    ]
    others = [test for arm in arms if (test := results.test(HEADLINE, arm.name)) is not None]
    return said + differences(others, reference.name, len(results.arms) - 1, "It was nearest {} often")


def differences(tests: Sequence[TestedPair], reference: str, adjusted: int, said: str) -> list[str]:
    """Which arms differ from the reference beyond chance, in sentences.

    Args:
        tests: that are told of, on one measure.
        reference: its name.
        adjusted: number of tests that p values were adjusted for.
        said: what the arms did, with `{}` for more or less.
    """
    if not tests:
        return []
    clear = [test for test in tests if test.p_holm < SIGNIFICANT]
    sentences = [
        f"{len(clear)} of {len(tests)} arms differ from {reference} beyond chance (p < {SIGNIFICANT}, adjusted for "
        f"{adjusted} tests)."
    ]
    for word, sign in (("more", 1), ("less", -1)):
        if names := [test.first for test in clear if test.comparison.difference.mean * sign > 0]:
            sentences.append(f"{said.format(word)} with {listed(names)}.")
    return sentences


def totals(results: Results) -> str:
    """The cost of the whole run in one sentence."""
    texts = sum(arm.samples for arm in results.arms)
    tokens, seconds = (
        sum(arm.samples * arm.measures[name].mean for arm in results.arms) for name in ("tokens", "seconds")
    )
    return f"In all {texts:,} texts, {tokens:,.0f} generated tokens and {seconds / 60:,.1f} minutes of writing."


def made_with(manifest: RunManifest) -> dict[str, str]:
    """What the run was made with, for whoever repeats it."""
    return {
        "experiment": f"{manifest.experiment} ({manifest.experiment_sha256[:12]})",
        "model": str(manifest.model.get("name")),
        "encoder": str(manifest.model.get("encoder_id")),
        "type": str(manifest.model.get("dtype")),
        "revision": manifest.revision or "unknown",
        "started": manifest.started,
        **manifest.versions,
        **manifest.platform,
    }


def _read_samples(path: Path, results: Results, pairs: Sequence[Pair]) -> tuple[tuple[Pair, tuple[ArmText, ...]], ...]:
    """What the arms wrote for these pairs with the first seed; pairs that the run did not get to are left out."""
    found: dict[str, dict[str, ArmText]] = {pair.id: {} for pair in pairs}
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                row = json.loads(line)
                if row["seed"] == results.seeds[0] and row["pair"] in found:
                    found[row["pair"]][row["arm"]] = ArmText(row["arm"], row["text"], _facts_of(row["measures"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamaged(
            f"{path} holds no samples of this run ({error}); give the `steer experiment` command of the run again, "
            "which makes it anew"
        ) from error
    names = [arm.name for arm in results.arms]
    return tuple(
        (pair, tuple(found[pair.id][name] for name in names if name in found[pair.id]))
        for pair in pairs
        if found[pair.id]
    )


def _facts_of(measures: Mapping[str, float | None]) -> str:
    """The numbers of one text, in a few words."""
    forms = {"rank": "rank {:.0f}", "base_nll": "NLL {:.2f}", "tokens": "{:,.0f} tokens"}
    return ", ".join(form.format(value) for name, form in forms.items() if (value := measures.get(name)) is not None)
