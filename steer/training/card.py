"""The model card, written from a recipe and measured figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from steer.evaluation.sections import CAPTION, figure_sections
from steer.training.recipe import Recipe

ABOUT = (
    "On stories kept out of training; latents without noise, texts of latents written greedily. The ending of a text "
    "is its last span with words; an independent sentence embedder tells which of the terminals is nearest to it. "
)


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
    latent, package = recipe.autoencoder, recipe.package
    lines = [
        *("---", "library_name: steer", f"license: {package.license}", "tags: [steer, latent, text-generation]", "---"),
        *(f"# {recipe.name}", "", package.description.strip(), "", "## Training"),
        *training_lines([*before, (recipe, stages)]),
        *head_lines(stages),
        f"- Spans of {latent.span_tokens} tokens, latents of width {latent.z_dim}, {latent.soft_tokens} soft tokens "
        "per latent.",
        f"- Cosine above which a terminal counts as reached: {'not calibrated' if reached is None else reached}.",
        f"- Reproduce: `steer train all {file} --data-root CORPUS --out runs/{recipe.name.lower()}`.",
        "",
        *figure_table(figures),
        *sample_lines(figures.get("endings", {}).get("samples", [])),
    ]
    for title, text in (("Data", package.data), ("Limits", package.limits)):
        if text:
            lines += [f"## {title}", text.strip(), ""]
    return "\n".join(lines)


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


def head_lines(stages: Mapping[str, Any]) -> list[str]:
    """What the heads were trained on, as a list in Markdown."""
    heads = (("reach", "Reach head", "passages"), ("prior", "Draft head", "spans"))
    return [
        f"- {title}: {done['parameters'] / 1e6:.2f} M parameters, trained on {done[what]:,} {what} of "
        f"{done['stories']:,} stories in {done['seconds'] / 60:.0f} minutes."
        for stage, title, what in heads
        if (done := stages.get(stage))
    ]


def figure_table(figures: Mapping[str, Any]) -> list[str]:
    """The figures of `steer.evaluation.evaluate.evaluate` as lines of Markdown, one table of all sections."""
    lines = ["## Figures", f"{ABOUT}{CAPTION}", "", "| | |", "|---|---|"]
    for section in figure_sections(figures):
        lines.append(f"| **{section.title}** | *{section.about}* |")
        lines += [f"| {measure} | {value} |" for measure, value in section.rows]
    return [*lines, ""]


def sample_lines(samples: Sequence[Mapping[str, str]]) -> list[str]:
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
