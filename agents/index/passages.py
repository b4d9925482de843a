"""Documents cut into passages, each short enough for one latent.

A passage is at most a span long. Cut at sentences, it holds as many whole ones as fit, so that it can be read by itself
(a sentence longer than a span is cut where the span ends); cut at tokens, every passage but the last is a full span, as
the reach head saw them in training.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np

from agents.errors import IndexingError
from steer.data.corpus import SUFFIXES, read_stories
from steer.data.windows import sentence_ends
from steer.models.latent_model import LatentModel

Cut = Literal["sentences", "tokens"]
ENDINGS = (*SUFFIXES, ".md")


@dataclass(frozen=True)
class Document:
    """A text to index.

    Attributes:
        source: where it is from, as people call it: a file's name.
        text: not empty, without white space around it.
    """

    source: str
    text: str

    def key(self, cut: Cut) -> str:
        """16 hexadecimal digits that tell this text, cut in this way, from any other (BLAKE2b)."""
        data = self.text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=8, person=cut.encode()).hexdigest()


def read_documents(paths: Sequence[str | Path]) -> Iterator[Document]:
    """The documents of files and folders, in the order of the paths, files of a folder (and those below) by name.

    A text file holds one document, or several with a line `<|endoftext|>` between them; a JSON-lines file one in the
    field `text` of each line; both may be gzipped. In folders, files named otherwise than `ENDINGS` are left out.

    Raises:
        CorpusError: a file is missing or cannot be read.
        IndexingError: a folder holds no such file.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield from (Document(path.name, text) for text in read_stories(path.absolute()))
            continue
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(ENDINGS))
        if not files:
            raise IndexingError(f"folder {path} holds nothing to index; expected files named *{', *'.join(ENDINGS)}")
        for file in files:
            name = file.relative_to(path).as_posix()
            yield from (Document(name, text) for text in read_stories(file.absolute()))


@final
class Cutter:
    """Cuts token rows into passages of at most a span.

    Args:
        model: for its tokenizer and the length of a span.
        cut: where.
    """

    def __init__(self, model: LatentModel, cut: Cut = "sentences") -> None:
        self.cut: Cut = cut
        self.span_tokens = model.span_tokens
        size = model.latent_config.base.vocab_size
        self._inside = model.continuation_tokens.cpu().numpy()
        # A sentence ends behind a token that ends one and before one that starts a word: not between `.` and `"`.
        self._ends, self._starts = np.zeros(size, bool), np.zeros(size, bool)
        ends = sentence_ends(model.tokenizer)[:size]
        self._ends[: len(ends)] = ends
        spellings = model.tokenizer.convert_ids_to_tokens(list(range(min(size, len(model.tokenizer)))))
        self._starts[: len(spellings)] = [bool(s) and s.startswith(("\u0120", "\u010a", "\u2581")) for s in spellings]

    def passages(self, ids: Sequence[int]) -> list[list[int]]:
        """The passages of a text, in order; joined they are `ids` again."""
        row = np.asarray(ids, np.int64)
        if self.cut == "tokens":
            borders = list(range(self.span_tokens, len(row), self.span_tokens))
        else:
            borders = self._sentence_borders(row)
        return [part.tolist() for part in np.split(row, borders) if len(part)]

    def _sentence_borders(self, row: np.ndarray) -> list[int]:
        if len(row) < 2:
            return []
        possible = np.flatnonzero(self._ends[row[:-1]] & self._starts[row[1:]]) + 1
        words = np.flatnonzero(~self._inside[row])
        borders: list[int] = []
        start = 0
        while len(row) - start > self.span_tokens:
            latest = start + self.span_tokens
            for choice in (possible, words):
                within = choice[(choice > start) & (choice <= latest)]
                if len(within):
                    latest = int(within[-1])
                    break
            borders.append(latest)
            start = latest
        return borders
