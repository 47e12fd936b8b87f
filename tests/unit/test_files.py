"""A reader, a crash or a full disk never meets half of a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from provision.core.files import read_json, write_atomically, write_json


def test_content_and_mode_are_as_asked_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomically(tmp_path / "new" / "secret", "söme", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "secret").read_text(encoding="utf-8") == "söme"
    assert stat.S_IMODE((tmp_path / "new" / "secret").stat().st_mode) == 0o600


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_in_the_way_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_open_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with path.open() as reader:
        write_atomically(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_record_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "record", {"pid": 1, "name": "ö"})
    assert read_json(tmp_path / "record") == {"pid": 1, "name": "ö"}
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b"null"])
def test_what_is_no_record_reads_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record").write_bytes(content)
    assert read_json(tmp_path / "record") is None
    assert read_json(tmp_path / "missing") is None
