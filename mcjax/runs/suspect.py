"""Reads a suspect network, and writes the repaired one in the same format.

The format is an mcjax checkpoint folder, a PyTorch or safetensors file (`mcjax.interop`), or an exported
program (.pt2), which has its architecture in itself.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mcjax import models
from mcjax.core import named_options as spec
from mcjax.core.errors import UserError, listed
from mcjax.core.progress import say
from mcjax.core.tree import PyTree, check_same_structure
from mcjax.interop import normalise as normalisations
from mcjax.interop.exported.check import check_against_torch
from mcjax.interop.exported.load import Exported, is_exported, load_exported, save_exported
from mcjax.interop.exported.network import variables_of
from mcjax.interop.files import is_file_of_tensors, read_state_dict
from mcjax.interop.load import Loaded, load_network, save_network
from mcjax.models.network import Network, from_linen, normalised
from mcjax.runs.checkpoint import restore_network, save
from mcjax.runs.workdir import arch_of_run

_ANOTHER_ARCH = (
    "give the arch that it was trained with, or none if the checkpoint is inside its run"
)


class Suspect(NamedTuple):
    """A network to repair.

    Attributes:
        network: The network.
        variables: Its variables, {"params", and "batch_stats" if it has them}.
        arch: Its architecture as a spec, NAME:option=value,...
        path: The path it was read from.
        image_shape: (height, width, channels) of its images.
        normalise: The normalisation inside `network`, or "".
        file: The contents of the file, if it is a file of tensors or an exported program.
        assumed: Whether `normalise` was given by the user and is not recorded in the checkpoint.
    """

    network: Network
    variables: PyTree
    arch: str
    path: Path
    image_shape: tuple[int, int, int]
    normalise: str = ""
    file: Loaded | Exported | None = None
    assumed: bool = False


def load_suspect(
    path: Path, arch: str | None, image_shape: tuple[int, int, int], normalise: str | None = None
) -> Suspect:
    """Reads a network.

    Args:
        path: An mcjax checkpoint folder, or a .pt2, .pt, .pth or .safetensors file.
        arch: NAME or NAME:option=value,...; None takes it from the run that contains the folder or
            from the checkpoint, or infers it from the names and shapes in the file.
        image_shape: (height, width, channels) of its images.
        normalise: The normalisation it was trained with, if that is not recorded in the checkpoint;
            see `mcjax.interop.normalise.parse`.

    Returns:
        The network, for images in [0, 1].

    Raises:
        UserError: There is no checkpoint, or its architecture is unknown or does not fit.
    """
    image_shape = tuple(map(int, image_shape))  # type: ignore[assignment]
    if is_exported(path):
        return _exported_suspect(path, arch, image_shape, normalise)
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
            normalise or loaded.state.normalise,
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
            f"the architecture of {path} is unknown; give arch, one of {', '.join(models.names())}"
        )
    num_classes = _num_classes(variables["params"])
    name, options = spec.parse(arch)
    module = models.create(name, num_classes=num_classes, **options)
    network = from_linen(module, image_shape)
    expected = jax.eval_shape(network.init, jax.random.key(0))
    size = "x".join(map(str, image_shape))
    check_same_structure(
        dict(expected),
        variables,
        (f"architecture {arch} for images of {size}", str(path)),
        advice=f"{_ANOTHER_ARCH}; or images of the size that it takes",
    )
    assumed = bool(normalise) and "normalise" not in metadata
    normalise = normalise or metadata.get("normalise", "")
    if normalise:
        network = normalised(network, *normalisations.parse(normalise))
    return Suspect(network, variables, arch, path, image_shape, normalise, assumed=assumed)


def _exported_suspect(
    path: Path, arch: str | None, image_shape: tuple[int, int, int], normalise: str | None
) -> Suspect:
    if arch:
        raise UserError(f"{path} has its architecture in itself; leave out arch")
    loaded = load_exported(path)
    expected = loaded.program.image_shape
    if expected != image_shape:
        raise UserError(
            f"the images are {_times(image_shape)}, but {path} was exported for {_times(expected)}; give "
            "images of that shape, or export it with an example of yours"
        )
    network = loaded.network
    if normalise:
        network = normalised(network, *normalisations.parse(normalise))
    return Suspect(
        network, loaded.variables, "exported program", path, image_shape, normalise or "", loaded
    )


def compare_with_torch(suspect: Suspect, second: Path | None = None) -> None:
    """Compares an exported program with PyTorch, if that is installed; it takes up to a minute.

    Apart from `load_suspect`, so that all other checks come first.

    Args:
        suspect: The result of `load_suspect`; nothing happens if it is no exported program.
        second: The file of a second network that runs in the same program, for the message.

    Raises:
        UserError: The program computes other numbers than in PyTorch.
    """
    if not isinstance(suspect.file, Exported):
        return
    if importlib.util.find_spec("torch"):
        say(f"{suspect.path}: read; comparing it with PyTorch on random images")
    if found := check_against_torch(suspect.file):
        also = f"; {second} runs in the same program" if second else ""
        say(f"{suspect.path}: computes what PyTorch computes (relative errors: {found}){also}")


def load_variables(path: Path, suspect: Suspect) -> PyTree:
    """Reads the variables of a second network with the suspect's architecture.

    Both networks of a path share one `Network`, so the normalisation, architecture and image size
    recorded in the file must be those of the suspect.

    Args:
        path: An mcjax checkpoint folder, or a .pt, .pth or .safetensors file.
        suspect: The result of `load_suspect`.

    Returns:
        The second network's variables.

    Raises:
        UserError: The file can't be read, or its structure, architecture, image size or
            normalisation is different.
    """
    if isinstance(suspect.file, Exported):
        return _exported_variables(path, suspect.file)
    if is_exported(path):
        raise UserError(
            f"{path} is an exported program, but {suspect.path} is not; export both, or neither"
        )
    recorded: dict[str, Any] = {}
    if is_file_of_tensors(path):
        loaded = load_network(path, suspect.arch, image_shape=suspect.image_shape)
        variables = loaded.variables
        if loaded.state.normalise:
            recorded["normalise"] = loaded.state.normalise
    else:
        variables, metadata = restore_network(path)
        recorded = {"normalise": "", **metadata}
        if suspect.assumed:
            recorded.pop(
                "normalise"
            )  # the user's `normalise` applies to both if neither records one
            recorded |= {k: v for k, v in metadata.items() if k == "normalise"}
    _check_same_kind(path, recorded, suspect)
    check_same_structure(suspect.variables, variables, (str(suspect.path), str(path)))
    return variables


def _exported_variables(path: Path, suspect: Exported) -> PyTree:
    """Those of another export of the same module, or of a state dict with the same names."""
    if is_exported(path):
        loaded = load_exported(path)
        if loaded.program != suspect.program:
            raise UserError(
                f"{path} and {suspect.archive.path} are programs of different modules (or have "
                "different buffers, such as a mean that is subtracted); export both from one module"
            )
        tensors = loaded.archive.tensors
    elif is_file_of_tensors(path):
        tensors = read_state_dict(path).tensors
    else:
        raise UserError(
            f"{path} is not a .pt2 file or a state dict; give one for {suspect.archive.path}"
        )
    lacking = [name for name in suspect.program.shapes if name not in tensors]
    if lacking:
        raise UserError(
            f"{path} lacks {listed(lacking)}; give a network of the same module as {suspect.archive.path}"
        )
    variables = variables_of(suspect.program, tensors)
    check_same_structure(suspect.variables, variables, (str(suspect.archive.path), str(path)))
    return variables


def _check_same_kind(path: Path, recorded: Mapping[str, Any], suspect: Suspect) -> None:
    """Checks that the second network has the suspect's normalisation, image size and architecture."""
    if "normalise" in recorded:
        own, other = (
            n and normalisations.parse(n) for n in (suspect.normalise, recorded["normalise"])
        )
        if own != other:
            raise UserError(
                f"{path} was trained on images normalised by {recorded['normalise'] or 'nothing'}, "
                f"{suspect.path} by {suspect.normalise or 'nothing'}; the networks of a path must "
                "have the same normalisation: give another second network"
            )
    shape = recorded.get("image_shape", suspect.image_shape)
    if tuple(shape) != tuple(suspect.image_shape):
        raise UserError(
            f"{path} was trained on images of {_times(shape)}, {suspect.path} on "
            f"{_times(suspect.image_shape)}; give another second network"
        )
    arch = recorded.get("arch")
    if arch and _module(arch) != _module(suspect.arch):
        raise UserError(
            f"{path} has architecture {arch}, but {suspect.path} has {suspect.arch}; give another second "
            "network"
        )


def _module(arch: str) -> Any:
    name, options = spec.parse(arch)
    return models.create(name, num_classes=2, **options)


def save_like(suspect: Suspect, folder: Path, variables: PyTree, *, t: float) -> Path:
    """Writes the repaired network in the suspect's format: a checkpoint or a file of tensors.

    Args:
        suspect: The result of `load_suspect`.
        folder: Output folder; the network is named `repaired`, with the suspect's suffix.
        variables: The repaired network's variables.
        t: The chosen point of the path, stored in a checkpoint's metadata.

    Returns:
        The path that was written. Beside an exported program lies its state dict, .safetensors.
    """
    if suspect.file is None:
        target = folder / "repaired"
        extra = {"normalise": suspect.normalise} if suspect.normalise else {}
        save(target, variables, arch=suspect.arch, t=t, **extra)
        return target
    target = folder / f"repaired{suspect.path.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(suspect.file, Exported):
        for path in (target, target.with_suffix(".safetensors")):
            save_exported(path, variables, suspect.file)
        return target
    state = suspect.file.state._replace(normalise=suspect.normalise)
    save_network(target, variables, suspect.file._replace(state=state))
    return target


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _num_classes(params: PyTree) -> int:
    """The width of the last dense layer (the highest-numbered one)."""
    dense = [name for name, layer in params.items() if getattr(layer.get("kernel"), "ndim", 0) == 2]
    if not dense:
        raise UserError(
            "the checkpoint has no dense layer, so the number of classes is unknown; give another"
        )
    last = max(dense, key=lambda name: (len(name), name))
    return int(params[last]["kernel"].shape[1])
