"""Files that are there whole or not at all, locks and hashes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steer.files import check_folder, file_hash, lock, open_plain, read_plain, sync_folder, write_atomic


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


def outside(tmp_path: Path) -> tuple[Path, Path]:
    """A folder, and a file beside it that must stay as it is."""
    folder, precious = tmp_path / "folder", tmp_path / "precious"
    (folder / "deep").mkdir(parents=True)
    precious.write_text("mine")
    return folder, precious


def test_no_link_is_followed(tmp_path: Path) -> None:
    folder, precious = outside(tmp_path)
    link = folder / "file.txt"
    link.symlink_to(precious)
    modes: list[Any] = ["rb", "r+b", "ab"]
    for mode in modes:
        with pytest.raises(OSError, match="links are not followed"):
            open_plain(link, mode)
    with pytest.raises(FileExistsError):
        open_plain(link, "xb")
    (folder / "file.txt.part").symlink_to(precious)
    write_atomic(link, "ours")
    assert precious.read_text() == "mine"
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["file.txt"] and link.read_text() == "ours"
    assert not link.is_symlink()


def test_a_hard_link_is_read_but_not_written(tmp_path: Path) -> None:
    folder, precious = outside(tmp_path)
    (folder / "hard").hardlink_to(precious)
    assert read_plain(folder / "hard") == b"mine"
    modes: list[Any] = ["r+b", "ab"]
    for mode in modes:
        with pytest.raises(OSError, match="hard link"):
            open_plain(folder / "hard", mode)
    with pytest.raises(OSError, match="hard link"), lock(folder / "hard"):
        pass
    assert precious.read_text() == "mine"


@pytest.mark.skipif(os.name != "posix", reason="pipes with names")
def test_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    modes: list[Any] = ["rb", "r+b"]
    for mode in modes:
        with pytest.raises(OSError, match="no plain file"):
            open_plain(tmp_path / "pipe", mode)
    with pytest.raises(OSError, match="no plain file"), lock(tmp_path / "pipe"):
        pass
    with pytest.raises(OSError, match="no plain file"):
        check_folder(tmp_path)
    with pytest.raises(OSError, match="no plain file"):
        open_plain(Path("/dev/zero"), "rb")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes; expected at most"):
        read_plain(tmp_path / "sparse")


def test_a_folder_of_plain_files_passes(tmp_path: Path) -> None:
    folder, _ = outside(tmp_path)
    (folder / "deep" / "file").write_text("text")
    (tmp_path / "also").symlink_to(folder)
    for path in (folder, tmp_path / "also", tmp_path / "nowhere", folder / "deep" / "file"):
        check_folder(path)


@pytest.mark.parametrize("target", ["precious", ".", "nowhere", "folder/deep"])
def test_links_at_any_depth_are_found(tmp_path: Path, target: str) -> None:
    folder, _ = outside(tmp_path)
    (folder / "deep" / "link").symlink_to(tmp_path / target)
    with pytest.raises(OSError, match="links are not followed") as error:
        check_folder(folder)
    assert error.value.filename == str(folder / "deep" / "link")


def test_links_may_lead_where_they_are_allowed(tmp_path: Path) -> None:
    folder, _ = outside(tmp_path)
    (folder / "deep" / "link").symlink_to(Path("..") / "file")
    (folder / "file").write_text("text")
    check_folder(folder, links_to=[folder])
    (folder / "deep" / "out").symlink_to(Path("..") / ".." / "precious")
    with pytest.raises(OSError, match="a link out of the folder, to .*precious"):
        check_folder(folder, links_to=[folder])
