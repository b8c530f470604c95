"""Atomic writes: whole or not at all, and one winner of several writers."""

import errno
import os
from pathlib import Path

import pytest

from mcjax.atomic import put_file


def no_links(*_):
    raise OSError(errno.ENOTSUP, "Operation not supported")


@pytest.mark.parametrize("links", [True, False])
def test_the_first_of_several_writers_wins(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "folder" / "result.json"
    assert put_file(path, b"first", replace=False)
    assert not put_file(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert put_file(path, b"third")
    assert path.read_bytes() == b"third"
    assert os.listdir(path.parent) == ["result.json"]


@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[:1])
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(path, mode):
        file = opened(path, mode)
        return Full(file) if mode == ("wb" if links else "xb") else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space left"):
        put_file(tmp_path / "result.json", b"{}", replace=False)
    assert os.listdir(tmp_path) == []
