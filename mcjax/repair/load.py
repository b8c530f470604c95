"""Reading a suspect network from where its owner keeps it. A new kind of file is one more loader."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from mcjax import models, spec
from mcjax.checkpoint import restore
from mcjax.errors import UserError
from mcjax.network import Network, from_linen
from mcjax.tree import PyTree, check_same_structure
from mcjax.workdir import read_config


class Suspect(NamedTuple):
    """A network to repair.

    Attributes:
        network: Its functions.
        variables: Its weights, {"params", and "batch_stats" if it has them}.
        arch: Its architecture as --arch takes it.
    """

    network: Network
    variables: PyTree
    arch: str


def load_suspect(path: Path, arch: str | None, image_shape: tuple[int, int, int]) -> Suspect:
    """Reads a network that mcjax has saved.

    Args:
        path: The checkpoint's folder.
        arch: NAME or NAME:option=value,...; None takes it from the run that the folder is in, or
            from the checkpoint itself.
        image_shape: (height, width, channels) of its images.

    Returns:
        The network.

    Raises:
        UserError: No checkpoint, an unknown or missing architecture, weights of another one.
    """
    tree, metadata = restore(path)
    variables = {name: tree[name] for name in ("params", "batch_stats") if tree.get(name)}
    if "params" not in variables:
        raise UserError(f"{path} holds no network: no params; give a network's checkpoint")
    trained_on = metadata.get("image_shape", image_shape)
    if tuple(trained_on) != tuple(image_shape):
        raise UserError(
            f"the images are {_times(image_shape)}, but {path} was trained on {_times(trained_on)}; give "
            "images of that shape"
        )
    arch = arch or metadata.get("arch") or _of_run(path)
    if not arch:
        raise UserError(
            f"what network is {path}? add --arch NAME, one of {', '.join(models.names())}"
        )
    num_classes = _num_classes(variables["params"])
    name, options = spec.parse(arch)
    module = models.create(name, num_classes=num_classes, **options)
    network = from_linen(module, tuple(map(int, image_shape)))  # type: ignore[arg-type]
    expected = jax.eval_shape(network.init, jax.random.key(0))
    check_same_structure(dict(expected), variables, (f"architecture {arch}", str(path)))
    return Suspect(network, variables, arch)


def load_variables(path: Path, suspect: Suspect) -> PyTree:
    """Reads the variables of a second network of the suspect's architecture."""
    tree, _ = restore(path)
    variables = {name: tree[name] for name in ("params", "batch_stats") if tree.get(name)}
    check_same_structure(suspect.variables, variables, ("the suspect", str(path)))
    return variables


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _of_run(path: Path) -> str:
    """The architecture in the config of the run that a checkpoint belongs to, if it is in one."""
    for folder in path.absolute().parents:
        if (folder / "config.json").exists():
            model = read_config(folder)["config"]["model"]
            return spec.write(model["name"], model["options"])
    return ""


def _num_classes(params: PyTree) -> int:
    """The width of the last dense layer, the highest-numbered where there are several."""
    dense = [name for name, layer in params.items() if getattr(layer.get("kernel"), "ndim", 0) == 2]
    if not dense:
        raise UserError("the checkpoint has no dense layer to tell the number of classes from")
    last = max(dense, key=lambda name: (len(name), name))
    return int(params[last]["kernel"].shape[1])
