"""The pairs of an experiment: from a file of the user's, from one that comes with the package, or cut from stories."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agents.errors import ExperimentError
from agents.experiments.pairs.spec import PairSource
from steer.data.pairs import Pair, make_pairs
from steer.errors import TextError
from steer.text import check_text, read_text


def packaged_pairs() -> dict[str, Path]:
    """The files of pairs that come with the package, by name without ending."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.jsonl"))}


def load_pairs(source: PairSource, load_model: Callable[[], Any]) -> list[Pair]:
    """The pairs that a source names, in order.

    Args:
        source: of an experiment.
        load_model: gives the `LatentModel`, whose tokens measure what is cut; called for stories alone.

    Raises:
        ExperimentError: a file of pairs that cannot be used, or a packaged one that does not exist.
        CorpusError: stories that cannot be read, or too few of them.
        TextError: a file that cannot be read.
    """
    if source.stories is None:
        return read_pairs(_file(source))
    from steer.data.corpus import read_stories

    assert source.count is not None
    return make_pairs(load_model(), list(read_stories(Path(source.stories))), source.count, seed=source.seed)


def read_pairs(path: Path) -> list[Pair]:
    """Pairs from JSON lines with `id`, `context` and `terminal`; other fields are passed over.

    Raises:
        ExperimentError: a line that is no such object, an id that stands twice, or fewer than two pairs.
        TextError: the file cannot be read.
    """
    pairs: dict[str, Pair] = {}
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(read_text(path, "file of pairs").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            pair = Pair(str(fields["id"]), fields["context"], fields["terminal"])
            check_text(pair.context, "context")
            check_text(pair.terminal, "terminal")
        except (json.JSONDecodeError, KeyError, TypeError, TextError) as error:
            said = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise ExperimentError(
                f"{path}:{number}: expected a JSON object with id, context and terminal: {said}"
            ) from error
        if pair.id in pairs:
            raise ExperimentError(f"{path}:{number}: the id {pair.id!r} stands twice; each pair needs its own")
        pairs[pair.id] = pair
    if len(pairs) < 2:
        raise ExperimentError(f"{path} holds {len(pairs)} pairs; at least two are needed to tell terminals apart")
    return list(pairs.values())


def pairs_text(pairs: Sequence[Pair]) -> str:
    """Pairs as JSON lines that `read_pairs` reads back."""
    rows = ({"id": pair.id, "context": pair.context, "terminal": pair.terminal} for pair in pairs)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def source_identity(source: PairSource) -> dict[str, Any]:
    """What decides the pairs, wherever their file lies: its hash (None for a folder), count and seed.

    Raises:
        ExperimentError: the file is not there.
    """
    path = Path(source.stories) if source.stories is not None else _file(source)
    if path.is_dir():
        return {"folder": str(path), "count": source.count, "seed": source.seed}
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ExperimentError(f"cannot read {path}: {error.strerror}") from error
    return {"sha256": digest, "count": source.count, "seed": source.seed}


def _file(source: PairSource) -> Path:
    if source.file is not None:
        return Path(source.file)
    known = packaged_pairs()
    if source.packaged not in known:
        raise ExperimentError(
            f"no packaged pairs {source.packaged!r}; expected {', '.join(known) or 'none: none are packaged'}"
        )
    return known[source.packaged]
