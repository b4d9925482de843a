"""Does the model write plays? The next line of a talk, `Fox: ...`, measured and written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer.evaluation.decoding import Progress, nlls
from steer.evaluation.statistics import share_with_interval
from steer.models.latent_model import LatentModel
from steer.noise import derive_seed
from steer.writing.config import WritingConfig
from steer.writing.guided import write_guided
from steer.writing.limits import Limits
from steer.writing.sampling import SamplingConfig

LINE = re.compile(r"(?P<who>[A-Z][\w.' -]{0,19}): (?P<text>.+)")
BEFORE = 2  # lines of speech that stand before the one that is wanted, at least
SPANS = 2  # written for a line, as for a turn


@dataclass(frozen=True)
class Line:
    """A line of a play: what stands before it, up to `Name:`; who speaks; and what is said."""

    context: str
    who: str
    speech: str


def draw_lines(stories: Sequence[str], count: int, rng: np.random.Generator) -> list[Line]:
    """One line of each of up to `count` stories, as plays of `steer.data.dialogue`; stories and lines at random."""
    from steer.data.dialogue import to_script

    lines: list[Line] = []
    for i in rng.permutation(len(stories)):
        rows = (to_script(stories[int(i)]) or "").splitlines()
        spoken = [k for k, row in enumerate(rows) if LINE.fullmatch(row)]
        if len(spoken) <= BEFORE:
            continue
        k = spoken[int(rng.integers(BEFORE, len(spoken)))]
        found = LINE.fullmatch(rows[k])
        assert found is not None
        lines.append(Line("\n".join([*rows[:k], f"{found['who']}:"]), found["who"], found["text"]))
        if len(lines) == count:
            break
    return lines


def play_figures(
    model: LatentModel,
    stories: Sequence[str],
    *,
    count: int = 100,
    seed: int = 0,
    sampling: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """How likely the bare base finds the lines of unseen plays, and whether what it writes unguided is a line.

    A model that has seen no plays drifts back into telling: the line does not end, quotes, or speaks of its speaker by
    name, as in `Fox: "I am hungry," said Fox.`

    Args:
        stories: unseen text with speech in quotation marks.
        count: lines, of as many stories.
        seed: of lines and writing.
        sampling: settings; by default temperature 0.7 and top-p 0.95.

    Returns:
        `lines`; `base_nll` of the lines that the plays have, nats per token; of those that were written the shares with
        intervals that end within two spans (`ends`) and that hold neither quotation marks nor their speaker's name
        (`speech`); and the latter for the plays' own lines (`own_speech`). None where no story makes a play.
    """
    lines = draw_lines(stories, count, np.random.default_rng((seed, 6)))
    if not lines:
        return None
    contexts = [model.to_ids(line.context)[-model.latent_config.max_context :] for line in lines]
    rows = [tuple(model.to_ids(f" {line.speech}")) for line in lines]
    config = WritingConfig(sampling=sampling or SamplingConfig(), limits=Limits(plays=True))
    written: list[str] = []
    for start in range(0, len(lines), 20):
        seeds = [derive_seed(seed, "play", str(i)) for i in range(start, min(start + 20, len(lines)))]
        parts = write_guided(model, contexts[start : start + 20], spans=SPANS, seeds=seeds, config=config)
        # An end of the story ends the line as well.
        written += [part.text.lstrip("\n") + ("\n" if part.ended else "") for part in parts]
        if progress:
            progress("lines of plays", len(written), len(lines))
    return {
        "lines": len(lines),
        "base_nll": float(nlls(model, contexts, rows).mean()),
        "ends": share_with_interval(np.array(["\n" in text for text in written])),
        "speech": share_with_interval(
            np.array([is_speech(t.partition("\n")[0], line.who) for t, line in zip(written, lines, strict=True)])
        ),
        "own_speech": share_with_interval(np.array([is_speech(line.speech, line.who) for line in lines])),
    }


def is_speech(text: str, who: str) -> bool:
    """Whether a line is what somebody says: something, without quotation marks and without the speaker's own name."""
    return bool(text.strip()) and '"' not in text and re.search(rf"\b{re.escape(who)}\b", text) is None
