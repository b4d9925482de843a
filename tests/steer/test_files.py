"""Files that are there whole or not at all, locks and hashes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steer.files import file_hash, lock, sync_folder, write_atomic


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


def test_a_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_a_lock_is_held_by_one_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path) as mine, lock(path) as second:
        assert (mine, second) == (True, False)
        assert path.read_text(encoding="utf-8").startswith(f"{os.getpid()} on ")
    assert not path.exists()
    with lock(path) as third:
        assert third


def test_a_lock_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


HOLD = """
import sys, time
from pathlib import Path
from steer.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_lets_go_of_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with lock(path) as mine:
            assert not mine
        process.kill()
        with lock(path, wait=True) as mine:
            assert mine
