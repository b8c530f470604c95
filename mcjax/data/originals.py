"""Reads data sets from their original published files: finds, verifies and parses them."""

import dataclasses
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.data import cache
from mcjax.data.dataset import Dataset
from mcjax.errors import UserError

Part = dict[str, np.ndarray]

LARGEST = 2**30
"""Maximum bytes of an unpacked file, several times the largest one read here."""


@dataclasses.dataclass(frozen=True)
class Original:
    """The published files of a data set and how to read them.

    A member may be a plain file, gzipped, or inside the published tar archive; its checksum is that
    of the uncompressed contents.

    Args:
        name: Data set name.
        image_shape: (height, width, channels).
        num_classes: Number of classes.
        train: Names of the training set's files, in the order that `parse` expects.
        test: Names of the test set's files.
        md5: Published MD5 of each file's contents, by file name.
        parse: Maps the contents of one part's files to {"image": ..., "label": ...}.
        advice: Which files to put where, completing the sentence "put ...".
        folders: Subfolders of the data directory to search, besides itself and `name`.
        archive: The published tar archive, or None.
        default_dir: Folder to search if no data directory is given, or None.
        cached: Whether reading is slow enough to cache the arrays.
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
        """Loads the data set, or returns None if none of its files is found.

        Args:
            data_dir: Folder of the files; None for `default_dir`.
            verify: Whether to compare checksums.
            cache_dir: Folder of cached arrays, used only if `cached` and `verify` are True.

        Returns:
            The data set, or None.

        Raises:
            UserError: Some files are missing, damaged or not as published.
        """
        folder = data_dir or self.default_dir
        paths = self._find(folder) if folder is not None else {}
        if not paths:
            return None
        missing = [member for member in self.train + self.test if member not in paths]
        if missing:
            raise UserError(
                f"{self.name}: {', '.join(missing)} not found in {folder}, but other files of the "
                f"data set are; put {self.advice}"
            )
        key = cache.key(self.name, self.md5.values(), set(paths.values()))
        arrays = cache.read(cache_dir, key) if self.cached and verify else None
        if arrays is None:
            arrays = self._read(paths, verify)
            if self.cached and verify:
                cache.write(cache_dir, key, arrays)
        how = "checksums verified" if verify else "checksums not verified"
        return Dataset(
            name=self.name,
            train={"image": arrays["train_image"], "label": arrays["train_label"]},
            test={"image": arrays["test_image"], "label": arrays["test_label"]},
            num_classes=self.num_classes,
            source=f"original files in {folder}, {how}",
        )

    def _find(self, folder: Path) -> dict[str, Path]:
        """The path of each member's file; for members of the archive, the archive's path."""
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
            # Arbitrary bytes can raise anything in a parser.
            except Exception as error:
                raise UserError(
                    f"{paths[members[0]]}: not in the format of {self.name} ({_one_line(error)}); "
                    f"put {self.advice}"
                ) from error
            if part["image"].shape[1:] != self.image_shape:
                raise UserError(
                    f"{paths[members[0]]}: images have shape {part['image'].shape[1:]}, but those of "
                    f"{self.name} have {self.image_shape}; put {self.advice}"
                )
            arrays[f"{name}_image"], arrays[f"{name}_label"] = part["image"], part["label"]
        return arrays

    def _verify(self, paths: dict[str, Path], contents: dict[str, bytes]) -> None:
        for member, data in contents.items():
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if digest != self.md5[member]:
                raise UserError(
                    f"{paths[member]}: {member} has MD5 {digest}, but that published for {self.name} "
                    f"is {self.md5[member]}; download the file again, or set verify=False"
                )


def _contents(paths: dict[str, Path]) -> dict[str, bytes]:
    """The uncompressed contents of each member."""
    contents: dict[str, bytes] = {}
    for path in sorted(set(paths.values())):
        members = {member for member, holder in paths.items() if holder == path}
        try:
            contents.update(_unwrap(path, members))
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise UserError(
                f"{path}: cannot be read ({_one_line(error)}); download it again"
            ) from error
        if absent := members - contents.keys():
            raise UserError(
                f"{path}: has no member {', '.join(sorted(absent))}; download the published archive "
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
        # Read to the end, where gzip verifies its checksum.
        while archive.fileobj is not None and archive.fileobj.read(1 << 20):
            pass
    return contents


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
