"""A network of the user's own on the command line: FILE.py:NAME."""

import runpy
from pathlib import Path
from typing import Any

import flax.linen as nn

from mcjax.core.bucket import local
from mcjax.core.errors import UserError, shown
from mcjax.core.foreign import refuse_torch
from mcjax.models.network import Network, from_linen

FORM = "FILE.py:NAME, a linen module, its class, or a mcjax.models.network.Network"


def own_network(text: str, image_shape: tuple[int, int, int]) -> Network:
    """Runs a Python file and takes a network from it.

    Args:
        text: FILE.py:NAME; NAME is a linen module, its class if it needs no arguments, a `Network`, or
            a function without arguments that returns one of them.
        image_shape: (height, width, channels) of its images.

    Returns:
        The network.

    Raises:
        UserError: There is no such file or name, the file fails, or NAME is no network.
    """
    file, _, name = text.rpartition(":")
    path = local(file) if file else Path(name)
    if not name or not path.is_file():
        raise UserError(f"--network is {text}; give {FORM}")
    try:
        found: Any = runpy.run_path(str(path))
    except Exception as error:  # the user's file can raise anything
        raise UserError(f"{path} can't be run ({type(error).__name__}: {_line(error)})") from None
    if name not in found:
        raise UserError(f"{path} has no {name}; give {FORM}")
    made = found[name]
    refuse_torch(name, made)
    if callable(made) and not isinstance(made, nn.Module | Network):
        try:
            made = made()
        except Exception as error:
            raise UserError(f"{name}() fails ({type(error).__name__}: {_line(error)})") from None
        refuse_torch(name, made)
    if isinstance(made, Network):
        return made
    if not isinstance(made, nn.Module):
        raise UserError(f"{name} of {path} is {shown(made)}; give {FORM}")
    try:
        return from_linen(made, image_shape)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} does not accept images {list(image_shape)} and train=False "
            f"({type(error).__name__}: {_line(error)}); give --image_shape"
        ) from None


def _line(error: Exception) -> str:
    return shown(error) if not str(error).strip() else str(error).strip().splitlines()[0][:150]
