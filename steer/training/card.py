"""The model card, written from a recipe and measured figures."""

from collections.abc import Sequence
from typing import Any

from steer.evaluation.sections import CAPTION, quality_sections
from steer.training.recipe import Recipe


def model_card(
    recipe: Recipe,
    figures: dict[str, Any],
    stages: dict[str, Any],
    reached: float | None,
    before: Sequence[tuple[Recipe, dict[str, Any]]] = (),
    file: str = "recipe.yaml",
) -> str:
    """Markdown with front matter.

    All numbers come from `figures` (see `steer.evaluation.evaluate.evaluate`) and the stages' `done.json`.

    Args:
        recipe: of the model.
        figures: measured on the packaged model.
        stages: contents of `done.json` by the stage's name.
        reached: cosine above which a terminal counts as reached where there is no reach head; None if unknown.
        before: recipes that this one continues, the first one first, each with its `stages`.
        file: name of the recipe's file.
    """
    latents = figures["latents"]
    reach, prior = (stages.get(stage, {}) for stage in ("reach", "prior"))
    lines = [
        "---",
        "library_name: steer",
        f"license: {recipe.package.license}",
        "tags: [steer, latent, text-generation]",
        "---",
        f"# {recipe.name}",
        "",
        recipe.package.description.strip(),
        "",
        "## Training",
        *training_lines([*before, (recipe, stages)]),
        *(
            [
                f"- Reach head: {reach['parameters'] / 1e6:.2f} M parameters, trained on {reach['passages']:,} "
                f"passages of {reach['stories']:,} stories in {reach['seconds'] / 60:.0f} minutes."
            ]
            if reach
            else []
        ),
        *(
            [
                f"- Draft head: {prior['parameters'] / 1e6:.2f} M parameters, trained on {prior['spans']:,} spans of "
                f"{prior['stories']:,} stories in {prior['seconds'] / 60:.0f} minutes."
            ]
            if prior
            else []
        ),
        f"- Spans of {recipe.autoencoder.span_tokens} tokens, latents of width {recipe.autoencoder.z_dim}, "
        f"{recipe.autoencoder.soft_tokens} soft tokens per latent.",
        f"- Reproduce: `steer train all {file} --data-root CORPUS --out runs/{recipe.name.lower()}`.",
        "",
        "## Figures",
        "On stories kept out of training; latents without noise.",
        "",
        "| nats per token | own latent | null latent | another span's latent |",
        "|---|---|---|---|",
        f"| in context | {latents['nll_own']:.2f} | {latents['nll_null']:.2f} | {latents['nll_wrong']:.2f} |",
        f"| without context | {latents['alone_own']:.2f} | {latents['alone_null']:.2f} | {latents['alone_wrong']:.2f} "
        "|",
        "",
        f"Token accuracy of reconstruction {latents['accuracy']:.1%} in context, {latents['alone_accuracy']:.1%} "
        "without; "
        f"KL {latents['kl']:.0f} nats per span; {latents['active_units']:.0f} of {recipe.autoencoder.z_dim} units "
        "active; "
        f"cosine above which a terminal counts as reached: {'not calibrated' if reached is None else reached}.",
        "",
    ]
    if "reach" in figures:
        lines += reach_table(figures["reach"])
    if "prior" in figures:
        lines += prior_lines(figures["prior"])
    if "quality" in figures:
        lines += quality_tables(figures)
    if "endings" in figures:
        lines += endings_table(figures["endings"])
        lines += sample_lines(figures["endings"].get("samples", []))
    for title, text in (("Data", recipe.package.data), ("Limits", recipe.package.limits)):
        if text:
            lines += [f"## {title}", text.strip(), ""]
    return "\n".join(lines)


def reach_table(found: dict[str, Any]) -> list[str]:
    """The figures of `steer.evaluation.reach` as lines of Markdown."""
    calibration = found["calibration"]
    names = ("auc_other", "auc_rival", "auc_earlier", "order")
    rows = [(kind, [found[kind].get(name) for name in names]) for kind in ("reach", "cosine")]
    return [
        f"Reach head, on {found['states']:,} spans: how often a terminal that is still to come scores above one that "
        "is not (area under the curve), and how often the nearer of two spans of a story is told from the farther. The "
        "cosine of the two latents for comparison.",
        "",
        "| | another story's | a story's with a shared name | told before | nearer or farther |",
        "|---|---|---|---|---|",
        *(
            f"| {'reach head' if kind == 'reach' else kind} | "
            + " | ".join("-" if value is None else f"{value:.3f}" for value in values)
            + " |"
            for kind, values in rows
        ),
        "",
        f'Expected calibration error of "told within {calibration["spans"]} spans": {calibration["ece"]:.3f}.',
        *(told_line(found["told"]) if "told" in found else []),
        "",
    ]


def training_lines(rounds: Sequence[tuple[Recipe, dict[str, Any]]]) -> list[str]:
    """What each of a row of recipes did to the base, and to encoder and router, as a list in Markdown."""
    pretrained = next((recipe.pretrained for recipe, _ in rounds if recipe.pretrained), None)
    lines = [] if pretrained is None else [f"- Base: `{pretrained}`, not trained here."]
    for name, stage in (("Base", "base"), ("Encoder, router and heads", "autoencoder")):
        done = [(recipe, stages[stage]) for recipe, stages in rounds if stage in stages]
        if not done:
            continue
        parts = []
        for recipe, figures in done:
            steps = recipe.base.train.steps if stage == "base" and recipe.base is not None else recipe.autoencoder.steps
            loss = f", validation loss {figures['eval_loss']:.3f} nats per token" if "eval_loss" in figures else ""
            took = f", {figures['train_runtime'] / 60:.0f} minutes" if "train_runtime" in figures else ""
            machine = f" on {figures['machine']}" if "machine" in figures else ""
            parts.append(f"{steps:,} steps{loss}{took}{machine}")
        lines.append(f"- {name}: {done[-1][1].get('parameters', 0) / 1e6:.1f} M parameters; {'; then '.join(parts)}.")
    return lines


def told_line(told: dict[str, Any]) -> list[str]:
    """How well the head tells that a terminal is told, as lines of Markdown."""
    middle = told.get("pulled_similarity")
    return [
        "",
        "A goal counts as told where the head finds it in a span: "
        f"{told['recall']:.1%} of the sentences that a span tells pass, {told['alarms_other']:.2%} of those of other "
        f"stories and {told['alarms_rival']:.2%} of those of stories with a shared name. A threshold on the cosine "
        "alone that lets as many wrong ones pass finds "
        f"{told['recall_cosine']:.1%}.",
        *(
            ["", f"In text that is pulled towards a goal the cosine must be {middle:.2f}, that of a middling telling."]
            if middle is not None
            else []
        ),
    ]


def prior_lines(found: dict[str, Any]) -> list[str]:
    """The figures of `steer.evaluation.prior` as lines of Markdown."""
    cosine = found["cosine"]
    return [
        f"Draft head, on {found['spans']:,} spans: {found['nll']:.3f} nats per number of the next latent (the Gaussian "
        f"of all latents: {found['nll_marginal']:.3f}). Cosine of the next latent with the head's mean "
        f"{cosine['mean']:.3f}, with a draft that it draws {cosine['drawn']:.3f}, with a written draft "
        f"{cosine['written']:.3f}, with the mean of all latents {cosine['nothing']:.3f}.",
        "",
    ]


def endings_table(ends: dict[str, Any]) -> list[str]:
    """The `endings` of `steer.evaluation.evaluate.evaluate` as lines of Markdown."""
    lines = [
        f"Endings: {ends['pairs']} context/terminal pairs from unseen stories, {ends['spans']} spans, temperature "
        f"{ends['temperature']}. Judged by an independent sentence embedder: the share of endings whose nearest "
        f"terminal among {ends.get('among', 100)} is the right one, with its 95 % bootstrap interval. The last column "
        "is how likely the bare base finds the text (nats per token; lower is more fluent).",
        "",
        "| arm | nearest | among the nearest five | base NLL |",
        "|---|---|---|---|",
    ]
    for arm, found in ends["arms"].items():
        near, five = ("{:.0%} ({:.0%} to {:.0%})".format(*found[key]) for key in ("nearest", "nearest_five"))
        lines.append(f"| {arm} | {near} | {five} | {found['base_nll']:.2f} |")
    return [*lines, ""]


def quality_tables(figures: dict[str, Any]) -> list[str]:
    """The figures of `steer.evaluation` as lines of Markdown, one table of all sections."""
    lines = [f"What latents are like to write from, greedily. {CAPTION}", "", "| | |", "|---|---|"]
    for section in quality_sections(figures):
        lines.append(f"| **{section.title}** | *{section.about}* |")
        lines += [f"| {measure} | {value} |" for measure, value in section.rows]
    return [*lines, ""]


def sample_lines(samples: list[dict[str, str]]) -> list[str]:
    """The samples of `steer.evaluation.evaluate.evaluate` as lines of Markdown; nothing where there are none."""
    if not samples:
        return []
    arms = [name for name in samples[0] if name not in ("context", "goal")]
    lines = ["Samples: the first pairs of those, not chosen. Of each text its last span with words, as it was cut.", ""]
    for number, sample in enumerate(samples, start=1):
        lines.append(f"{number}. {_one_line(sample['context'])}")
        lines += [f"   - {name}: {_one_line(sample[name]) or '(nothing)'}" for name in ("goal", *arms)]
    return [*lines, ""]


def _one_line(text: str) -> str:
    return " ".join(text.split())
