"""Documents into a store: each passage encoded, with where it stands, in batches of whole documents.

A batch is one transaction, so a build that is stopped at any moment leaves whole documents only, and the same command
goes on with those that are missing. A document that is there already, from whatever file, is not stored twice.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from agents.errors import IndexingError
from agents.index.passages import Cutter, Document
from steer.errors import TextError
from steer.models.latent_model import LatentModel
from vectorstore import DuplicateId, NewRecord, Record, VectorStore

SPAN = "span"  # kind of the records
STORY, POSITION, SPANS, ENDING = "story", "position", "spans", "ending"  # extra fields, see `build_index`


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        documents: read.
        known: of these, how many were in the store before, or came twice.
        empty: of these, how many have no tokens.
        spans: passages added.
    """

    documents: int
    known: int
    empty: int
    spans: int


def open_index(path: str | Path, model: LatentModel, *, create: bool = False) -> VectorStore:
    """Open the store of passages in a folder, for this model's latents.

    Args:
        path: the folder.
        model: whose encoder the store's vectors are of.
        create: make it if it is not there, and open it for writing.

    Raises:
        VectorStoreError: it is not there, is of another encoder, or cannot be used.
    """
    options: dict[str, Any] = {"encoder": model.latent_config.encoder_identity, "dim": model.latent_config.z_dim}
    if create:
        return VectorStore.open(path, **options, indexed=(ENDING,))
    return VectorStore.open(path, **options, readonly=True, mmap=True)


def build_index(
    model: LatentModel,
    store: VectorStore,
    documents: Iterable[Document],
    cutter: Cutter,
    *,
    batch: int = 64,
    on_batch: Callable[[BuildReport], None] | None = None,
) -> BuildReport:
    """Encode the passages of documents into a store.

    Their records have the document's source as `owner` and in `extra` the key of the document (`story`), the place in
    it (`position`, from 0), of how many (`spans`), and whether it is the last (`ending`). A document of which the store
    holds any passage is known and left as it is: what was deleted of it does not come back.

    Args:
        model: encodes.
        store: open for writing.
        documents: what to index.
        cutter: makes passages of them.
        batch: documents per transaction.
        on_batch: called with the report so far, when a batch is on the disk. What it raises stops the build.

    Raises:
        IndexingError: a document's text is not valid Unicode.
        VectorStoreError: the store cannot be written.
    """
    if batch < 1:
        raise IndexingError(f"batch is {batch}; expected at least 1 document")
    report = BuildReport(0, 0, 0, 0)
    rest = iter(documents)
    while chosen := list(islice(rest, batch)):
        keyed = {document.key(cutter.cut): document for document in chosen}
        fresh, spans = _add(model, store, keyed, cutter)
        empty = sum(not passages for passages in fresh.values())
        report = BuildReport(
            documents=report.documents + len(chosen),
            known=report.known + len(chosen) - len(fresh),
            empty=report.empty + empty,
            spans=report.spans + spans,
        )
        if on_batch is not None:
            on_batch(report)
    return report


def _add(
    model: LatentModel, store: VectorStore, documents: dict[str, Document], cutter: Cutter
) -> tuple[dict[str, list[list[int]]], int]:
    """Add the documents that the store does not know, all or none. Returns their passages, and how many were added."""
    left = len(documents) + 1
    while True:
        known = {record.extra[STORY] for record in store.find([passage_id(key, 0) for key in documents])}
        cut = _cut(model, cutter, {key: document for key, document in documents.items() if key not in known})
        ids = [passage_id(key, place) for key, passages in cut.items() for place in range(1, len(passages))]
        deleted = {record.extra[STORY] for record in store.find(ids)}  # at least their first passage
        fresh = {key: passages for key, passages in cut.items() if key not in deleted}
        records = list(_records(model, documents, fresh))
        try:
            store.add(records)
        except DuplicateId:
            # Another process added some of them since they were looked up. Then fewer are left now, or it is an error.
            if len(fresh) >= left:
                raise
            left = len(fresh)
        else:
            return fresh, len(records)


def passage_id(story: str, position: int) -> str:
    """Id of a document's passage in a store."""
    return f"{story}/{position:05d}"


def surroundings(store: VectorStore, record: Record, count: int) -> tuple[list[str], list[str]]:
    """Texts of so many passages before and after one, as far as there are any left, in order."""
    story, place, spans = (record.extra[name] for name in (STORY, POSITION, SPANS))
    before = [passage_id(story, p) for p in range(max(0, place - count), place)]
    after = [passage_id(story, p) for p in range(place + 1, min(spans, place + 1 + count))]
    texts = {found.id: found.text for found in store.find(before + after)}
    return [texts[id] for id in before if id in texts], [texts[id] for id in after if id in texts]


def _cut(model: LatentModel, cutter: Cutter, documents: dict[str, Document]) -> dict[str, list[list[int]]]:
    """The passages of documents, as token ids, by the documents' keys."""
    found = {}
    for key, document in documents.items():
        try:
            found[key] = cutter.passages(model.to_ids(document.text))
        except TextError as error:
            raise IndexingError(f"a document of {document.source} cannot be indexed: {error}") from error
    return found


def _records(
    model: LatentModel, documents: dict[str, Document], cut: dict[str, list[list[int]]]
) -> Iterator[NewRecord]:
    rows = [row for passages in cut.values() for row in passages]
    if not rows:
        return
    places = [(key, place, len(passages)) for key, passages in cut.items() for place in range(len(passages))]
    vectors = model.encode_ids(rows).numpy()
    encoder = model.latent_config.encoder_identity
    for (key, place, count), row, vector in zip(places, rows, vectors, strict=True):
        yield NewRecord(
            id=passage_id(key, place),
            kind=SPAN,
            owner=documents[key].source,
            text=model.to_text(row).strip(),
            vector=vector,
            encoder=encoder,
            extra={STORY: key, POSITION: place, SPANS: count, ENDING: place == count - 1},
        )
