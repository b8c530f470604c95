"""Data sets as their authors publish them: find the files, check their contents, read them."""

import dataclasses
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.core.errors import UserError
from mcjax.data import cache
from mcjax.data.dataset import Dataset

Part = dict[str, np.ndarray]

LARGEST = 2**30
"""Bytes of one file, unpacked: several times the largest of those read here."""


@dataclasses.dataclass(frozen=True)
class Original:
    """One data set's published files and how to read them.

    A file's contents count, not its wrapping: a member may lie on disk as it is, gzipped, or inside
    the published tar archive, and its checksum is of the bytes that come out.

    Args:
        name: Data set name.
        image_shape: (height, width, channels).
        num_classes: Number of classes.
        train: Names of the files that make the training set, in the order that `parse` wants.
        test: The same for the test set.
        md5: Published MD5 of each file's contents, by file name.
        parse: Maps the contents of the files of one part to {"image": ..., "label": ...}.
        advice: What to put where, completing the sentence "put ...".
        folders: Folders below the data directory in which to look, besides itself and `name`.
        archive: The published tar archive, or None.
        default_dir: Folder in which to look when no data directory is given, or None.
        cached: Whether reading is slow enough to keep the arrays in the cache.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    md5: dict[str, str]
    parse: Callable[[list[bytes]], Part]
    advice: str
    folders: tuple[str, ...] = ()
    archive: str | None = None
    default_dir: Path | None = None
    cached: bool = False

    def load(self, data_dir: Path | None, *, verify: bool, cache_dir: Path) -> Dataset | None:
        """Loads the data set, or returns None where none of its files is found.

        Args:
            data_dir: Folder that holds the files; None for `default_dir`.
            verify: Whether to compare checksums.
            cache_dir: Folder of cached arrays, read and written only where `cached` and `verify`.

        Returns:
            The data set, or None.

        Raises:
            UserError: files are missing, damaged or of other contents than the published ones.
        """
        folder = data_dir or self.default_dir
        paths = self._find(folder) if folder is not None else {}
        if not paths:
            return None
        missing = [member for member in self.train + self.test if member not in paths]
        if missing:
            raise UserError(
                f"{self.name}: {', '.join(missing)} not found in {folder}, though other files of "
                f"it are; put {self.advice}"
            )
        key = cache.key(self.name, self.md5.values(), set(paths.values()))
        arrays = cache.read(cache_dir, key) if self.cached and verify else None
        if arrays is None:
            arrays = self._read(paths, verify)
            if self.cached and verify:
                cache.write(cache_dir, key, arrays)
        how = "contents' checksums verified" if verify else "checksums not verified"
        return Dataset(
            name=self.name,
            train={"image": arrays["train_image"], "label": arrays["train_label"]},
            test={"image": arrays["test_image"], "label": arrays["test_label"]},
            num_classes=self.num_classes,
            source=f"original files in {folder}, {how}",
        )

    def _find(self, folder: Path) -> dict[str, Path]:
        """The file on disk that holds each member; the archive's own path for a member of it."""
        places = [folder / self.name, *(folder / name for name in self.folders), folder]
        for place in places:
            found = {}
            for member in self.train + self.test:
                for path in (place / member, place / f"{member}.gz"):
                    if path.is_file():
                        found[member] = path
                        break
            if found:
                return found
        for place in places:
            if self.archive and (place / self.archive).is_file():
                return dict.fromkeys(self.train + self.test, place / self.archive)
        return {}

    def _read(self, paths: dict[str, Path], verify: bool) -> dict[str, np.ndarray]:
        contents = _contents(paths)
        if verify:
            self._verify(paths, contents)
        arrays = {}
        for name, members in (("train", self.train), ("test", self.test)):
            try:
                part = self.parse([contents.pop(member) for member in members])
            # Foreign bytes can fail in any way inside a reader; all mean the same to the user.
            except Exception as error:
                raise UserError(
                    f"{paths[members[0]]}: not in the format of {self.name} ({_one_line(error)}); "
                    f"put {self.advice}"
                ) from error
            if part["image"].shape[1:] != self.image_shape:
                raise UserError(
                    f"{paths[members[0]]}: images of shape {part['image'].shape[1:]} where "
                    f"{self.name} has {self.image_shape}; put {self.advice}"
                )
            arrays[f"{name}_image"], arrays[f"{name}_label"] = part["image"], part["label"]
        return arrays

    def _verify(self, paths: dict[str, Path], contents: dict[str, bytes]) -> None:
        for member, data in contents.items():
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if digest != self.md5[member]:
                raise UserError(
                    f"{paths[member]}: contents of {member} have MD5 {digest}, published for "
                    f"{self.name} is {self.md5[member]}; fetch the file again, or set verify=False"
                )


def _contents(paths: dict[str, Path]) -> dict[str, bytes]:
    """Each member's bytes, unwrapped."""
    contents: dict[str, bytes] = {}
    for path in sorted(set(paths.values())):
        members = {member for member, holder in paths.items() if holder == path}
        try:
            contents.update(_unwrap(path, members))
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise UserError(
                f"{path}: cannot be read ({_one_line(error)}); it may be truncated: fetch it again"
            ) from error
        if absent := members - contents.keys():
            raise UserError(
                f"{path}: has no member {', '.join(sorted(absent))}; fetch the published archive "
                "again"
            )
    return contents


def _unwrap(path: Path, members: set[str]) -> dict[str, bytes]:
    if ".tar" not in path.suffixes:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise OSError(f"it holds more than {LARGEST // 2**20} MiB")
        return dict.fromkeys(members, data)
    contents = {}
    with tarfile.open(path) as archive:
        for entry in archive:
            name = Path(entry.name).name
            if name in members and entry.size > LARGEST:
                raise tarfile.TarError(f"{name} is of {entry.size} bytes")
            if name in members and (file := archive.extractfile(entry)) is not None:
                contents[name] = file.read()
        # On to the end, where gzip compares its checksum.
        while archive.fileobj is not None and archive.fileobj.read(1 << 20):
            pass
    return contents


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
