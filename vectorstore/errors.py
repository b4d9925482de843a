"""Every error that this package raises on purpose.

::

    VectorStoreError
    ├── StoreNotFound       (FileNotFoundError)  there is no store at that path
    ├── StoreLocked         (TimeoutError)       another process held the write lock for too long
    ├── StoreClosed         (ValueError)         the store was used after close()
    ├── StoreReadOnly       (PermissionError)    a write to a store opened read-only, or to a file that is
    ├── StoreCorrupt        (ValueError)         the SQLite file is damaged, or is no SQLite file
    ├── ForeignDatabase     (ValueError)         the SQLite file belongs to another program
    ├── NewerSchema         (ValueError)         the store was written by a newer version of this package
    ├── StorageFailure      (OSError)            the disk or the file system refused (full, permissions, ...)
    ├── EncoderMismatch     (ValueError)         the vectors come from another encoder
    ├── DimensionMismatch   (ValueError)         the vectors have another width
    ├── MetricMismatch      (ValueError)         the store was created with another metric
    ├── InvalidVector       (ValueError)         wrong dtype or shape, NaN, infinity, zero length under cosine
    ├── InvalidRecord       (ValueError)         a field of a record cannot be stored as it is
    ├── InvalidArgument     (ValueError)         an argument is out of range or of the wrong type
    ├── DuplicateId         (ValueError)         a record with that id exists
    ├── RecordNotFound      (KeyError)           no record has that id
    ├── EmptyStore          (LookupError)        a search in a store without records
    ├── TooFewVectors       (ValueError)         an index that must be trained, and too little to train it on
    └── MissingDependency   (ImportError)        an optional package is not installed

Each is also the builtin in brackets, so callers that know nothing of this package can still catch it.
"""


class VectorStoreError(Exception):
    """Base of all errors of this package."""

    # KeyError prints the repr of its message; every error here prints the message itself.
    __str__ = Exception.__str__


class StoreNotFound(VectorStoreError, FileNotFoundError):
    """There is no store at the path."""


class StoreLocked(VectorStoreError, TimeoutError):
    """Another process held the write lock for longer than the busy timeout."""


class StoreClosed(VectorStoreError, ValueError):
    """The store was used after `close()`."""


class StoreReadOnly(VectorStoreError, PermissionError):
    """A write was asked of a store that was opened read-only, or whose file may not be written."""


class StoreCorrupt(VectorStoreError, ValueError):
    """The SQLite file is damaged, or is no SQLite file."""


class ForeignDatabase(VectorStoreError, ValueError):
    """The SQLite file belongs to another program."""


class NewerSchema(VectorStoreError, ValueError):
    """The store was written by a newer version of this package."""


class StorageFailure(VectorStoreError, OSError):
    """The disk or the file system refused."""


class EncoderMismatch(VectorStoreError, ValueError):
    """The vectors come from another encoder than those in the store."""


class DimensionMismatch(VectorStoreError, ValueError):
    """The vectors have another width than those in the store."""


class MetricMismatch(VectorStoreError, ValueError):
    """The store was created with another metric."""


class InvalidVector(VectorStoreError, ValueError):
    """A vector has the wrong dtype or shape, is not finite, or has no direction under cosine."""


class InvalidRecord(VectorStoreError, ValueError):
    """A field of a record cannot be stored as it is."""


class InvalidArgument(VectorStoreError, ValueError):
    """An argument is out of range or of the wrong type."""


class DuplicateId(VectorStoreError, ValueError):
    """A record with that id is in the store, or twice in one call."""


class RecordNotFound(VectorStoreError, KeyError):
    """No record has that id."""


class EmptyStore(VectorStoreError, LookupError):
    """A search in a store that holds no records."""


class TooFewVectors(VectorStoreError, ValueError):
    """An index of this kind is trained, and the store holds too few vectors to do so."""


class MissingDependency(VectorStoreError, ImportError):
    """A package that this feature needs is not installed."""
