"""Data sets of torchvision by name: torchvision:NAME:FOLDER@SPLIT."""

import difflib
import inspect
import os
import re
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.core.extras import need
from mcjax.data import objects
from mcjax.data.pictures import Labelled, Reading

PREFIX = "torchvision:"
FORM = "torchvision:NAME:FOLDER@SPLIT, such as torchvision:SVHN:data@test"


def fits(path: Path) -> bool:
    """Whether a path names a data set of torchvision."""
    return str(path).startswith(PREFIX)


def read(path: Path, how: Reading) -> Labelled:
    """Reads a data set that torchvision has downloaded to a folder; nothing is downloaded.

    Args:
        path: torchvision:NAME:FOLDER@SPLIT; NAME is a class of torchvision.datasets. Without @SPLIT
            where the class has no splits.
        how: Size, channels and progress.

    Returns:
        The images, and class names if the data set has them.

    Raises:
        UserError: torchvision is not installed; the name, folder or split does not exist.
    """
    text = str(path)
    found = re.fullmatch(r"torchvision:(\w+):(.+?)(?:@([\w-]+))?", text)
    if not found:
        raise UserError(f"{text}: give {FORM}")
    name, folder, split = found[1], os.path.expanduser(found[2]), found[3]
    try:
        need("torchvision", "torchvision", text)
        from torchvision import datasets
    except (ImportError, RuntimeError, OSError) as error:  # built for another PyTorch
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"{text}: torchvision can't be imported ({reason}); reinstall it") from None
    cls = getattr(datasets, name, None)
    names = list(datasets.__all__)
    near = difflib.get_close_matches(name, set(names) - {name}, 1)
    if cls is None or name not in names or "root" not in inspect.signature(cls).parameters:
        raise UserError(
            f"{text}: torchvision.datasets has no {name} to read from a folder"
            + (f"; did you mean {near[0]}?" if near else "; give one of its classes")
        )
    try:
        data = cls(folder, **_split(text, cls, split))
    except UserError:
        raise
    except Exception as error:  # each class has its own
        reason = " ".join(str(error).split())[:200]
        advice = f"download it there first: torchvision.datasets.{name}({folder!r}, download=True)"
        if isinstance(error, ValueError):
            advice = "give another split"
        raise UserError(f"{text}: torchvision can't read it ({reason}); {advice}") from None
    return objects.read(text, data, how)


def _split(text: str, cls: Any, split: str | None) -> dict[str, Any]:
    """The argument that selects the split."""
    parameters = inspect.signature(cls).parameters
    if "split" in parameters:
        if split is None:
            raise UserError(f"{text}: add the split, such as {text}@test")
        return {"split": split}
    if "train" in parameters:
        if split not in ("train", "test"):
            raise UserError(f"{text}: its splits are train and test; add @train or @test")
        return {"train": split == "train"}
    if split is not None:
        raise UserError(f"{text}: it has no splits; leave out @{split}")
    return {}
