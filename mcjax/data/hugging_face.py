"""Data sets of the Hugging Face Hub by name: hf:NAME@SPLIT, hf:NAME:CONFIG@SPLIT."""

import re
from pathlib import Path

from mcjax.core.errors import UserError
from mcjax.core.extras import need
from mcjax.data import objects
from mcjax.data.pictures import Labelled, Reading

PREFIX = "hf:"
FORM = "hf:NAME@SPLIT, such as hf:ylecun/mnist@test"


def fits(path: Path) -> bool:
    """Whether a path names a data set of the Hub."""
    return str(path).startswith(PREFIX)


def read(path: Path, how: Reading) -> Labelled:
    """Loads a data set with the package `datasets`, from its cache or from the network.

    Args:
        path: hf:NAME@SPLIT or hf:NAME:CONFIG@SPLIT; SPLIT may be a slice, "test[:500]".
        how: Size, channels and progress.

    Returns:
        The images, and class names if the data set records them.

    Raises:
        UserError: The package `datasets` is not installed, or it can't load this.
    """
    text = str(path)
    found = re.fullmatch(r"hf:([\w./-]+)(?::([\w.-]+))?@([\w.\[\]:%+-]+)", text)
    if not found:
        raise UserError(f"{text}: give {FORM}")
    need("datasets", "datasets", text)
    import datasets

    try:
        data = datasets.load_dataset(found[1], found[2], split=found[3])
    except Exception as error:  # of the network, of the Hub, of the data set
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{text}: datasets can't load it ({reason}); check name, split and network, or give the "
            "folder of a data set that was saved by save_to_disk"
        ) from None
    return objects.read(text, data, how)
