"""Reads networks from .pt2 files and PyTorch modules, and writes them."""

import copy
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcjax.core.errors import UserError, listed, shown
from mcjax.core.tree import PyTree, check_same_structure
from mcjax.data.transforms import read_transform
from mcjax.interop import files
from mcjax.interop.exported import archive as archives
from mcjax.interop.exported.archive import Archive
from mcjax.interop.exported.network import (
    Program,
    network_of,
    program_of,
    tensors_of,
    variables_of,
)
from mcjax.models.network import Network, normalised


class Exported(NamedTuple):
    """A network read from a .pt2 file.

    Attributes:
        network: The network, for images in [0, 1].
        variables: {"params", and "batch_stats" if it has them}, nested by the state dict's names.
        program: What it computes.
        archive: The contents of the file.
    """

    network: Network
    variables: dict[str, Any]
    program: Program
    archive: Archive


def is_exported(path: Path) -> bool:
    """Whether a path names an exported program."""
    return path.suffix == archives.SUFFIX and not path.is_dir()


def load_exported(path: Path) -> Exported:
    """Reads a .pt2 file; nothing in it is executed, and PyTorch is not needed.

    Args:
        path: A file of `torch.export.save`.

    Returns:
        The network.

    Raises:
        UserError: The file can't be read, or its program can't be run; see `archive.read`,
            `network.program_of`.
    """
    held = archives.read(path)
    program = program_of(held)
    return Exported(network_of(program), variables_of(program, held.tensors), program, held)


def save_exported(path: Path, variables: PyTree, like: Exported) -> None:
    """Writes variables as a .pt2 file, or as a state dict (.safetensors, .pt).

    Args:
        path: A new file; its suffix sets the format.
        variables: Variables of the same network.
        like: The network that was read; its file must still be there.

    Raises:
        UserError: The variables are of another network, or the file can't be written.
    """
    check_same_structure(like.variables, variables, ("the file", "the variables"))
    tensors = tensors_of(variables)
    tensors |= {
        name: tensors[other] for name, other in like.program.tied.items() if other in tensors
    }
    if path.suffix == archives.SUFFIX:
        archives.write(path, like.archive, tensors)
    else:
        files.write_state_dict(path, files.fresh({**like.archive.tensors, **tensors}))


def from_torch(
    source: Any, example_images: Any = None, *, transform: Any = None, check: bool = True
) -> tuple[Network, dict[str, Any]]:
    """Makes a network from a PyTorch module, or from a file of `torch.export.save`.

    A module is exported first: its graph of operators is recorded on the example images. The result
    is checked against PyTorch on random images: logits, gradients, and in training mode the running
    statistics (`mcjax.interop.exported.check`).

    Args:
        source: A module that maps images [B, C, H, W] to logits [B, classes]; or the path of a .pt2
            file, which needs no PyTorch.
        example_images: With a module, some images [B, C, H, W]: a float32 tensor or array, in the
            range that the module expects.
        transform: The transform of torchvision or timm that the module is evaluated with. Its
            Normalize becomes part of the network; the rest is for the images
            (`mcjax.data.transforms.read_transform`).
        check: Compare with PyTorch, if it is installed.

    Returns:
        The network, for images [B, H, W, C] in [0, 1], and its variables.

    Raises:
        UserError: The module can't be exported, uses an operator that mcjax does not have, or
            computes other numbers here than in PyTorch; a file can't be read; a step of the transform
            is not supported.

    Example:
        >>> from mcjax.interop.exported.load import from_torch
        >>> network, variables = from_torch("suspect.pt2")  # doctest: +SKIP
    """
    normalisation = None if transform is None else read_transform(transform).normalisation
    if isinstance(source, str | Path):
        loaded = _from_file(Path(source), example_images)
    else:
        loaded = _from_module(source, example_images)
    if check:
        from mcjax.interop.exported.check import check_against_torch

        check_against_torch(loaded)
    network = loaded.network
    if normalisation is not None:
        network = normalised(network, *normalisation.per_channel(loaded.program.image_shape[2]))
    return network, loaded.variables


def to_torch(variables: PyTree, module: Any) -> Any:
    """Puts the variables of an imported network into its PyTorch module.

    Args:
        variables: Variables of the network that `from_torch` made of the module, repaired for
            example.
        module: The module; it is not changed.

    Returns:
        A copy of the module with these parameters and running statistics, in evaluation mode. Its
        `state_dict()` has the original names.

    Raises:
        UserError: `module` is not a PyTorch module, or one with other parameters.

    Example:
        >>> from mcjax.interop.exported.load import to_torch
        >>> repaired = to_torch(fixed.variables, module)  # doctest: +SKIP
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise UserError(f"{shown(module)} is not a torch.nn.Module; give the one that was imported")
    made = copy.deepcopy(module).eval()
    tensors = {name: torch.tensor(np.asarray(w)) for name, w in tensors_of(variables).items()}
    state = made.state_dict()
    wrong = [n for n, w in tensors.items() if n not in state or state[n].shape != w.shape]
    if wrong:
        raise UserError(
            f"the variables are not those of this module (they differ in {listed(wrong)}); give the "
            "module that was imported"
        )
    made.load_state_dict(tensors, strict=False)  # buffers that are constants stay
    return made


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            "a module needs PyTorch; pip install 'mcjax[torch]', or give a .pt2 file"
        ) from None
    return torch


def _from_file(path: Path, example_images: Any) -> Exported:
    if example_images is not None and path.suffix == archives.SUFFIX:
        raise UserError("a .pt2 file has its own example; leave out example_images")
    try:
        return load_exported(path)
    except UserError:
        if path.suffix == archives.SUFFIX:
            raise
        found = "is not a program of torch.export" if path.exists() else "does not exist"
        raise UserError(
            f"{path} {found}; load the module in PyTorch and give mcjax.from_torch(module, "
            "example_images), or repair a file of weights from the shell: python -m mcjax.repair "
            f"--model {path} --arch NAME"
        ) from None


def _from_module(module: Any, example_images: Any) -> Exported:
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise UserError(f"{shown(module)} is not a torch.nn.Module or the path of a .pt2 file")
    if example_images is None:
        raise UserError("a module needs example_images, [B, C, H, W]; a .pt2 file does not")
    images = torch.as_tensor(np.asarray(example_images))
    if images.ndim != 4 or images.dtype != torch.float32:
        raise UserError(
            f"example_images are {images.dtype} {list(images.shape)}; give float32 [B, C, H, W]"
        )
    was_training = module.training
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.pt2"
        try:
            program = torch.export.export(module.eval(), (images[[0, 0]],))
            torch.export.save(program, path)
        except Exception as error:  # PyTorch raises many kinds
            raise _refused(module, images[[0, 0]], error) from None
        finally:
            module.train(was_training)
        return load_exported(path)


def _refused(module: Any, images: Any, error: Exception) -> UserError:
    """Why torch.export failed: the module does not run on the images, or it can't be recorded."""
    try:
        with _torch().no_grad():
            module(images)
    except Exception as own:
        _, height, width, channels = images.shape
        advice = "give images of the shape that it was trained on"
        if channels <= 4 < min(height, width):
            advice = (
                "PyTorch's modules take [B, C, H, W], and these look like [B, H, W, C]: give "
                "np.moveaxis(images, -1, 1)"
            )
        return UserError(
            f"the module fails on example_images {list(images.shape)} ({_reason(own)}); {advice}"
        )
    return UserError(
        f"torch.export can't record this module ({_reason(error)}); it must not branch on the "
        "values of tensors"
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(lines[0].split())[:200]}"
