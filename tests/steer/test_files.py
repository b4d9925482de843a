"""Files that are there whole or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest

from steer.files import sync_folder, write_atomic


@pytest.mark.parametrize("content", ["", "a\nb\r\n", "\u00e4\u2028", b"", b"\x00\xff\n"])
def test_what_is_written_is_what_was_given(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_refused_file_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "before")

    def refuse(*_: Any) -> None:
        raise OSError(28, "no space left")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(OSError, match="no space left"):
                write_atomic(path, "after")
        assert path.read_text() == "before"
    write_atomic(path, "after")  # the draft that was left behind is in nobody's way
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "after"


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_atomic(tmp_path / "nowhere" / "file.txt", "text")
    if os.name == "posix":
        with pytest.raises(FileNotFoundError, match="nowhere"):
            sync_folder(tmp_path / "nowhere")
