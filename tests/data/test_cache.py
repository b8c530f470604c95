import dataclasses
import hashlib
import os

import numpy as np
import pytest
from data_files import mat, svhn_images, write_svhn

from mcjax.data import cache
from mcjax.data.svhn import SVHN_CROPPED
from mcjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    write_svhn(path)
    return path


def published(folder, **options):
    """SVHN as if the small files in `folder` were the published ones."""
    md5 = {m: hashlib.md5((folder / m).read_bytes()).hexdigest() for m in SVHN_CROPPED.md5}
    return dataclasses.replace(SVHN_CROPPED, md5=md5, **options)


def refuse(contents):
    raise AssertionError("read the original files, not the cache")


def test_a_second_load_comes_from_the_cache_and_is_equal(tmp_path, folder):
    first = published(folder).load(folder, verify=True, cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    again = published(folder, parse=refuse).load(folder, verify=True, cache_dir=tmp_path / "cache")
    assert again.source == first.source
    assert again.source.endswith("checksums verified")
    for part in ("train", "test"):
        for key in ("image", "label"):
            np.testing.assert_array_equal(getattr(again, part)[key], getattr(first, part)[key])


def test_a_replaced_original_is_verified_again(tmp_path, folder):
    original = published(folder)
    original.load(folder, verify=True, cache_dir=tmp_path / "cache")
    (folder / "test_32x32.mat").write_bytes(mat(svhn_images(2, 9), np.ones((2, 1), np.uint8)))
    with pytest.raises(UserError, match="MD5"):
        original.load(folder, verify=True, cache_dir=tmp_path / "cache")


def test_an_entry_made_for_other_checksums_is_not_used(tmp_path, folder):
    published(folder).load(folder, verify=True, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="MD5"):
        SVHN_CROPPED.load(folder, verify=True, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "foreign"])
def test_a_damaged_entry_is_read_anew(tmp_path, folder, damage):
    original = published(folder)
    first = original.load(folder, verify=True, cache_dir=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    good = entry.read_bytes()
    if damage == "changed":  # a well-formed file whose arrays are not those that were written
        with np.load(entry) as file:
            arrays = dict(file)
        arrays["train_label"] = arrays["train_label"][::-1]
        np.savez(entry, **arrays)
    else:
        entry.write_bytes({"truncated": good[:-200], "empty": b"", "foreign": b"x" * 999}[damage])
    again = original.load(folder, verify=True, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.train["label"], first.train["label"])
    published(folder, parse=refuse).load(folder, verify=True, cache_dir=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, folder):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert published(folder).load(folder, verify=True, cache_dir=blocked / "cache") is not None


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    cache.write(tmp_path / "cache", "key", {"a": np.zeros(3)})
    assert list((tmp_path / "cache").iterdir()) == []
    assert cache.read(tmp_path / "cache", "key") is None


def test_default_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_dir() == tmp_path / "mcjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert cache.default_dir() == tmp_path / ".cache" / "mcjax"
