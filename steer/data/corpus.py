"""Stories in, token arrays out.

A corpus is read from a text file (records separated by a line `<|endoftext|>`), a JSON-lines file (field `text`),
either of them gzipped, a folder of such files, or a `datasets` name. It is tokenised once and kept as two NumPy arrays:
all tokens in one row, and the offset of each story. Every story ends with the tokenizer's end token. Stories are
assigned to the validation split by a hash of their text, so the split does not depend on the order or number of sources
and stays the same when sources are added.
"""

import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steer.errors import CorpusError

logger = logging.getLogger(__name__)

SEPARATOR = "<|endoftext|>"
SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")


def read_stories(source: str | Path, *, text_field: str = "text") -> Iterator[str]:
    """Yield the stories of `source`, stripped, empty ones dropped.

    Args:
        source: a file (`.txt`, `.jsonl`, plain or `.gz`), a folder of such files (read in name order), or the name of a
            data set for `datasets.load_dataset` (`name` or `name:split`).
        text_field: the JSON field or data set column that holds the text.

    Raises:
        CorpusError: nothing is there, a file is not UTF-8, not gzip although named so, or a JSON line has no such
            field.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES))
        if not files:
            raise CorpusError(f"folder {path} holds no training text; expected files named *{', *'.join(SUFFIXES)}")
        for file in files:
            yield from _read_file(file, text_field)
    elif path.is_file():
        yield from _read_file(path, text_field)
    elif path.suffix in {".txt", ".gz", ".jsonl"} or path.is_absolute() or str(source).startswith("."):
        raise CorpusError(f"no file or folder at {path}; check the recipe's paths, or pass --data-root")
    else:
        yield from _read_dataset(str(source), text_field)


def _read_file(path: Path, text_field: str) -> Iterator[str]:
    opener = gzip.open if path.name.endswith(".gz") else open
    plain = path.name.removesuffix(".gz")
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            if plain.endswith(".jsonl"):
                yield from _read_json_lines(path, lines, text_field)
            else:
                yield from _read_records(lines)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start} of a block); convert it first"
        ) from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise CorpusError(f"{path} is named .gz but cannot be unpacked: {error}; the file may be truncated") from error


def _read_records(lines: Iterator[str]) -> Iterator[str]:
    record: list[str] = []
    for line in lines:
        if line.strip() == SEPARATOR:
            if text := "".join(record).strip():
                yield text
            record.clear()
        else:
            record.append(line)
    if text := "".join(record).strip():
        yield text


def _read_json_lines(path: Path, lines: Iterator[str], text_field: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[text_field]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CorpusError(
                f"{path} line {number}: expected a JSON object with a field {text_field!r}, got {line[:80]!r}; a "
                "recipe's `text_field` names another one"
            ) from error
        if not isinstance(text, str) or not text.strip():
            continue
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise CorpusError(
                f"{path} line {number}: the text holds a lone surrogate, which no tokenizer takes; was it cut inside "
                "a character?"
            )
        yield text.strip()


def _read_dataset(name: str, text_field: str) -> Iterator[str]:
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(
            f"{name!r} is no file or folder, and reading it as a data set needs `pip install 'steer[train]'`"
        ) from error
    name, _, split = name.partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:  # the library raises many kinds; each means the same to the user
        raise CorpusError(f"{name!r} is no file or folder, and `datasets` cannot load it: {error}") from error
    for row in rows:
        if text := str(row.get(text_field) or "").strip():
            yield text


def is_validation(text: str, share: float) -> bool:
    """Whether a story belongs to the validation split.

    A pure function of its text (BLAKE2b), true for about `share` of all stories.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


@dataclass(frozen=True)
class TokenCorpus:
    """Tokenised stories.

    Attributes:
        tokens: `[n_tokens]` uint16 or uint32, memory-mapped when loaded; each story ends with the end token.
        offsets: `[n_stories + 1]` int64; story `i` is `tokens[offsets[i]:offsets[i + 1]]`.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def story(self, index: int) -> np.ndarray:
        """The tokens of one story, `[n]`, its end token included."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def save(self, folder: Path) -> None:
        """Write `tokens.npy` and `offsets.npy`; the offsets come last and mark the corpus as complete."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "tokens.npy", self.tokens)
        np.save(folder / "offsets.npy", self.offsets)

    @classmethod
    def load(cls, folder: Path) -> "TokenCorpus":
        """Memory-map a saved corpus.

        Raises:
            CorpusError: files are missing or do not fit each other.
        """
        try:
            tokens = np.load(folder / "tokens.npy", mmap_mode="r")
            offsets = np.load(folder / "offsets.npy")
        except (OSError, ValueError, EOFError) as error:
            raise CorpusError(
                f"no complete token corpus in {folder}: {error}; delete the folder and run the stage again"
            ) from error
        if len(offsets) < 2 or offsets[-1] != len(tokens):
            raise CorpusError(f"token corpus in {folder} is inconsistent; delete the folder and run the stage again")
        return cls(tokens, offsets)


def tokenize_stories(
    stories: Sequence[str], encode: Callable[[list[str]], list[list[int]]], *, eos_id: int, vocab_size: int
) -> TokenCorpus:
    """Tokenise stories in batches of 1,000 and join them, an end token after each.

    Args:
        stories: the texts.
        encode: a list of texts to a list of token id lists, without special tokens.
        eos_id: the end token.
        vocab_size: decides between uint16 and uint32.
    """
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    parts: list[np.ndarray] = []
    for start in range(0, len(stories), 1000):
        parts += [np.array([*ids, eos_id], dtype=dtype) for ids in encode(list(stories[start : start + 1000]))]
    if not parts:
        raise CorpusError("no stories to tokenise: the sources are empty")
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return TokenCorpus(np.concatenate(parts), offsets)


def pack_blocks(
    corpus: TokenCorpus, block: int, generator: np.random.Generator, repeats: np.ndarray | None = None
) -> np.ndarray:
    """Shuffle the stories, join them, and cut the row into blocks: `[n_blocks, block]` int32.

    The rest that fills no block is dropped.

    Args:
        corpus: the stories.
        block: tokens per block.
        generator: orders the stories.
        repeats: `[n_stories]` float, how often each story occurs; the fraction is drawn at random.
    """
    order = np.arange(len(corpus))
    if repeats is not None:
        whole = np.floor(repeats).astype(int)
        whole += generator.random(len(repeats)) < (repeats - whole)
        order = np.repeat(order, whole)
    generator.shuffle(order)
    tokens = np.concatenate([corpus.tokens[:0], *(corpus.story(int(i)) for i in order)]).astype(np.int32)
    n = len(tokens) // block
    if n == 0:
        raise CorpusError(f"the corpus has {len(tokens)} tokens, fewer than one block of {block}")
    return tokens[: n * block].reshape(n, block)
