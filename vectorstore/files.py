"""The files of a store's folder, which may come from a stranger: plain files, and no links.

`steer.files` has the same for its files; neither of the two packages imports the other.
"""

import hashlib
import os
import re
import stat
from pathlib import Path

from vectorstore.errors import StorageFailure, StoreCorrupt

RECORDS_FILE = "records.sqlite"
# Names as a store makes them: whatever else lies in the folder is somebody's own.
INDEX_NAME = re.compile(r"index-[0-9a-f]{12}\.(faiss|npz)")
PART = ".part"


def check_files(folder: Path, *, written: bool) -> None:
    """See that the files of a store are plain files: SQLite and FAISS would follow links, and wait for pipes.

    Args:
        folder: of the store; it may be a link itself, or not be there.
        written: whether they are to be written: then no other name may lead to the records, either.

    Raises:
        StoreCorrupt: one is a link, a pipe or a device.
        StorageFailure: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(RECORDS_FILE) or INDEX_NAME.fullmatch(entry.name.removesuffix(PART)):
                    _check_file(Path(entry.path), written=written)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageFailure(f"{folder}: {error}; expected a folder that can be read") from error


def _check_file(file: Path, *, written: bool) -> None:
    try:
        status = file.stat(follow_symlinks=False)
    except FileNotFoundError:
        return  # another process has just removed it
    if not stat.S_ISREG(status.st_mode):
        what = "a link, and links are not followed" if stat.S_ISLNK(status.st_mode) else "no plain file"
        raise StoreCorrupt(f"{file}: it is {what}; put a file in its place, or delete it")
    if written and file.name == RECORDS_FILE and status.st_nlink > 1:
        raise StoreCorrupt(
            f"{file}: another name leads to the same file (a hard link), which SQLite would damage; copy it to make it "
            "a file of its own, or open it with readonly=True"
        )


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
