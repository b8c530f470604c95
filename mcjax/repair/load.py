"""Reading a suspect network from where its owner keeps it, and writing the repaired one beside.

It may be a checkpoint folder of mcjax, or a PyTorch or safetensors file (`mcjax.interop`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from mcjax import models, spec
from mcjax.checkpoint import restore_network, save
from mcjax.errors import UserError
from mcjax.interop import normalise as normalisations
from mcjax.interop.files import is_file_of_tensors
from mcjax.interop.load import Loaded, load_network, save_network
from mcjax.logs import say
from mcjax.network import Network, from_linen, normalised
from mcjax.tree import PyTree, check_same_structure
from mcjax.workdir import arch_of_run

_ANOTHER_ARCH = (
    "give the --arch that it was trained with, or none: a checkpoint in its run is known"
)


class Suspect(NamedTuple):
    """A network to repair.

    Attributes:
        network: Its functions.
        variables: Its weights, {"params", and "batch_stats" if it has them}.
        arch: Its architecture as --arch takes it.
        path: Where it came from.
        image_shape: (height, width, channels) of its images.
        normalise: What its images are normalised by inside `network`, "" if they are not.
        file: What the file held, if it is one of PyTorch's.
    """

    network: Network
    variables: PyTree
    arch: str
    path: Path
    image_shape: tuple[int, int, int]
    normalise: str = ""
    file: Loaded | None = None


def load_suspect(
    path: Path, arch: str | None, image_shape: tuple[int, int, int], normalise: str | None = None
) -> Suspect:
    """Reads a network.

    Args:
        path: The folder of a checkpoint that mcjax saved, or a .pt, .pth or .safetensors file.
        arch: NAME or NAME:option=value,...; None takes it from the run that the folder is in, or
            from the checkpoint itself, or finds it out from the names and shapes in the file.
        image_shape: (height, width, channels) of its images.
        normalise: What it was trained to have its images normalised by, where that is not known
            from the checkpoint: see `mcjax.interop.normalise.parse`.

    Returns:
        The network, of images in [0, 1].

    Raises:
        UserError: No checkpoint, an unknown or missing architecture, weights of another one.
    """
    image_shape = tuple(map(int, image_shape))  # type: ignore[assignment]
    if is_file_of_tensors(path):
        loaded = load_network(path, arch, image_shape=image_shape, normalisation=normalise)
        for note in loaded.notes:
            say(f"{path}: {note}")
        return Suspect(
            loaded.network,
            loaded.variables,
            loaded.form.arch,
            path,
            image_shape,
            normalise or "",
            loaded,
        )
    variables, metadata = restore_network(path)
    trained_on = metadata.get("image_shape", image_shape)
    if tuple(trained_on) != tuple(image_shape):
        raise UserError(
            f"the images are {_times(image_shape)}, but {path} was trained on {_times(trained_on)}; give "
            "images of that shape"
        )
    arch = arch or metadata.get("arch") or arch_of_run(path)
    if not arch:
        raise UserError(
            f"what network is {path}? add --arch NAME, one of {', '.join(models.names())}"
        )
    num_classes = _num_classes(variables["params"])
    name, options = spec.parse(arch)
    module = models.create(name, num_classes=num_classes, **options)
    network = from_linen(module, image_shape)
    expected = jax.eval_shape(network.init, jax.random.key(0))
    check_same_structure(
        dict(expected), variables, (f"architecture {arch}", str(path)), advice=_ANOTHER_ARCH
    )
    normalise = normalise or metadata.get("normalise", "")
    if normalise:
        network = normalised(network, *normalisations.parse(normalise))
    return Suspect(network, variables, arch, path, image_shape, normalise)


def load_variables(path: Path, suspect: Suspect) -> PyTree:
    """Reads the variables of a second network of the suspect's architecture, from any kind of file."""
    if is_file_of_tensors(path):
        variables = load_network(path, suspect.arch, image_shape=suspect.image_shape).variables
    else:
        variables, _ = restore_network(path)
    check_same_structure(suspect.variables, variables, ("the suspect", str(path)))
    return variables


def save_like(suspect: Suspect, folder: Path, variables: PyTree, *, t: float) -> Path:
    """Writes the repaired network as the suspect came: a checkpoint, or a file of its kind.

    Args:
        suspect: What `load_suspect` returned.
        folder: Where to; the network is named `repaired`, with the suspect's suffix.
        variables: The repaired network's.
        t: The point of the path, kept with a checkpoint.

    Returns:
        What was written.
    """
    if suspect.file is None:
        target = folder / "repaired"
        extra = {"normalise": suspect.normalise} if suspect.normalise else {}
        save(target, variables, arch=suspect.arch, t=t, **extra)
        return target
    target = folder / f"repaired{suspect.path.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    save_network(target, variables, suspect.file)
    return target


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _num_classes(params: PyTree) -> int:
    """The width of the last dense layer, the highest-numbered where there are several."""
    dense = [name for name, layer in params.items() if getattr(layer.get("kernel"), "ndim", 0) == 2]
    if not dense:
        raise UserError("the checkpoint has no dense layer to tell the number of classes from")
    last = max(dense, key=lambda name: (len(name), name))
    return int(params[last]["kernel"].shape[1])
