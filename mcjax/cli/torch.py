"""Converts networks and curves from PyTorch to mcjax and back.

    python -m mcjax.interop.torch check suspect.pt
    python -m mcjax.interop.torch check suspect.pt --arch resnet18:stem=cifar --image_shape 32x32x3
    python -m mcjax.interop.torch check suspect.pt --network net.py:InJax --image_shape 8x8x1
    python -m mcjax.interop.torch convert suspect.pt suspect.safetensors
    python -m mcjax.interop.torch convert suspect.pt folder
    python -m mcjax.interop.torch convert folder network.pt

check prints a file's architecture, the tensors that do not match, and the largest difference between
mcjax's and PyTorch's logits on random images. Where the file fits no architecture of mcjax, or with
--network (your own network in JAX), it lists every tensor and drafts the table of names. convert converts between PyTorch files, .safetensors
files and mcjax checkpoints. Only mcjax.interop imports PyTorch (pip install 'mcjax[torch]');
.safetensors files do not need it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from mcjax import models
from mcjax.cli.own_network import own_network
from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.interop import normalise
from mcjax.interop.draft import draft, draft_alone
from mcjax.interop.files import (
    SAFETENSORS,
    StateDict,
    is_file_of_tensors,
    read_state_dict,
    write_state_dict,
)
from mcjax.interop.form import FitsNoArchitecture, default_shape, nearest_form
from mcjax.interop.layouts.layout import Shape
from mcjax.interop.load import (
    Loaded,
    LoadedCurve,
    export_network,
    is_curve,
    load_curve,
    load_network,
)
from mcjax.interop.parity import TOLERANCE, Parity, parity
from mcjax.interop.rows import to_variables, unmatched
from mcjax.runs import checkpoint
from mcjax.runs.workdir import arch_of_run


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "arch",
        None,
        f"NAME or NAME:option=value,...; default: inferred from names and shapes. NAME is one of {', '.join(models.names())}.",
    )
    flags.DEFINE_string("network", None, "Draft the table for your own network, FILE.py:NAME.")
    flags.DEFINE_bool("tensors", False, "List every tensor, of a known architecture too.")
    flags.DEFINE_string("image_shape", None, "HEIGHTxWIDTHxCHANNELS of its images (32x32x3).")
    flags.DEFINE_string(
        "normalise",
        None,
        f"The normalisation of its images: {', '.join(normalise.KNOWN)}, or MEAN,.../STD,...",
    )
    flags.DEFINE_integer("num_images", 8, "Number of random images to compare logits on.")
    flags.DEFINE_integer("seed", 0, "Seed of the images.")


def main(*words: str) -> None:
    """Runs `check` or `convert`."""
    if len(words) == 2 and words[0] == "check":
        check(local(words[1]))
    elif len(words) == 3 and words[0] == "convert":
        convert(*(local(word) for word in words[1:]))
    else:
        raise UserError("give `check FILE` or `convert FROM TO`; see --help")


def check(path: Path) -> None:
    """Prints a file's contents, the mismatches, and the difference of the logits.

    Args:
        path: The file.

    Raises:
        UserError: The file can't be read or does not match, or logits differ; or a drafted table has
            open rows.
    """
    options = flags.FLAGS
    state = read_state_dict(path)
    curve = is_curve(state.tensors)
    print(f"{path}: {len(state.tensors)} tensors{' of a curve' if curve else ''}")
    shape = _image_shape(options.image_shape)
    if shape is None:
        assumed = _times(default_shape(state.tensors))
        print(f"images: assumed to be {assumed}; use --image_shape for another size")
    if options.network:
        _draft(state, shape or default_shape(state.tensors), path)
        return
    if options.tensors:
        _print_tensors(state)
    _print_unmatched(state, options.arch, shape, curve=curve, source=str(path))
    arguments: dict[str, Any] = {"image_shape": shape, "normalisation": options.normalise}
    try:
        loaded: Any = (load_curve if curve else load_network)(path, options.arch, **arguments)
    except FitsNoArchitecture as error:
        if not options.tensors:
            _print_tensors(state)
        print("a draft of the table, whose leaves depend on your network (docs/pytorch.md):")
        print(*draft_alone(state.tensors), sep="\n")
        raise UserError(
            f"{error}; or add --network FILE.py:NAME to draft the table for your network in JAX; "
            "or, without a table, export the module by torch.export (docs/pytorch.md)"
        ) from None
    form = loaded.form
    shape = shape or default_shape(loaded.state.tensors)
    print(
        f"architecture: {form.arch}, with the names of {form.layout.code}, images {_times(shape)}"
    )
    for note in loaded.notes:
        print(f"note: {note}")
    differences = _differences(loaded, shape)
    for at, difference in differences.items():
        print(
            f"logits{at}: the largest difference from PyTorch's is {difference.largest:.3g}, "
            f"{difference.relative:.2g} of the largest logit"
            + (f"; the first layer that differs is {difference.layer}" if difference.layer else "")
        )
    if not all(difference.equal for difference in differences.values()):
        raise UserError(
            f"{path}: logits differ by more than {TOLERANCE:g} of the largest; see above"
        )
    print(f"mcjax computes what PyTorch computes, to {TOLERANCE:g}")


def _print_tensors(state: StateDict) -> None:
    for name, w in state.tensors.items():
        print(f"  {name} {list(w.shape)} {w.dtype}")


def _draft(state: StateDict, shape: Shape, path: Path) -> None:
    """Prints all tensors and the drafted table, and tries the table."""
    network = own_network(flags.FLAGS.network, shape)
    _print_tensors(state)
    found = draft(state.tensors, network, shape)
    print("the draft of the table:")
    print(*found.lines(), sep="\n")
    if not found.complete:
        raise UserError(
            f"{path}: {len(found.open)} of {len(found.shapes)} tensors and {len(found.leaves)} leaves of "
            "the network are open, see the table; fill in their rows, or correct the network"
        )
    to_variables(state.tensors, found.rows, like=network, source=str(path))
    print(
        "the table is complete and every shape fits; guesses by order need a look. Compare the logits:\n"
        "  mcjax.interop.torch.parity(module, network, to_variables(tensors, TABLE, like=network), "
        f"{shape}, rows=TABLE)"
    )


def _differences(loaded: Loaded | LoadedCurve, shape: Shape) -> dict[str, Parity]:
    """The differences of the logits; for a curve at t = 0, 0.3 and 1."""
    try:
        from mcjax.interop import reference
    except ModuleNotFoundError:
        raise UserError("check needs PyTorch; pip install 'mcjax[torch]'") from None

    options, form = flags.FLAGS, loaded.form
    module = reference.build(form.module, form.layout, shape)

    def difference(tensors: dict[str, np.ndarray], variables: Any) -> Parity:
        return parity(
            reference.load(module, tensors),
            loaded.network,
            variables,
            shape,
            rows=form.rows,
            num_images=options.num_images,
            seed=options.seed,
            normalisation=normalise.parse(options.normalise) if options.normalise else None,
        )

    if isinstance(loaded, Loaded):
        return {"": difference(loaded.state.tensors, loaded.variables)}
    kind = type(loaded.curve).__name__.lower()
    stats = {"batch_stats": loaded.batch_stats} if loaded.batch_stats else {}
    return {
        f" at t = {t:g}": difference(
            reference.tensors_at(loaded.state.tensors, t, kind),
            {"params": loaded.curve(t), **stats},
        )
        for t in (0.0, 0.3, 1.0)
    }


def _print_unmatched(
    state: StateDict, arch: str | None, shape: Shape | None, *, curve: bool, source: str
) -> None:
    """Prints the missing and the unknown tensors for a given architecture."""
    if arch is None or curve:
        return
    form = nearest_form(state.tensors, arch, shape or default_shape(state.tensors), source)
    missing, unknown = unmatched(state.tensors, form.rows, form.unused)
    for what, names in (("missing", missing), ("not known", unknown)):
        for name in names:
            print(f"{what}: {name}")
    if not missing and not unknown:
        print("tensors that did not match: none")


def convert(source: Path, target: Path) -> None:
    """Converts between files of tensors and mcjax checkpoints.

    Args:
        source: A file of tensors, or an mcjax checkpoint folder.
        target: A new file or folder.

    Raises:
        UserError: The target exists, or the source can't be read.
    """
    options = flags.FLAGS
    if target.exists():
        raise UserError(f"{target} exists; give a new name, nothing is overwritten")
    shape = _image_shape(options.image_shape)
    if options.normalise:
        normalise.parse(options.normalise)  # checked before anything is written
    if not is_file_of_tensors(source):
        variables, metadata = checkpoint.restore_network(source)
        arch = options.arch or metadata.get("arch") or arch_of_run(source)
        shape = shape or tuple(map(int, metadata.get("image_shape", ()))) or None  # type: ignore[assignment]
        if not arch or not shape:
            raise UserError(f"{source} has no architecture; add --arch and --image_shape")
        kept = options.normalise or metadata.get("normalise", "")
        export_network(target, variables, arch, shape, normalise=kept)
        _tell_normalisation(target, kept)
    elif is_file_of_tensors(target):
        state = read_state_dict(source)
        state = state._replace(normalise=options.normalise or state.normalise)
        write_state_dict(target, state)
        for note in state.notes:
            print(f"note: {note}")
        _tell_normalisation(target, state.normalise)
    else:
        loaded = load_network(source, options.arch, image_shape=shape)
        shape = shape or default_shape(loaded.state.tensors)
        for note in loaded.notes:
            print(f"note: {note}")
        kept = options.normalise or loaded.state.normalise
        extra = {"normalise": kept} if kept else {}
        arch = loaded.form.arch
        checkpoint.save(target, loaded.variables, arch=arch, image_shape=list(shape), **extra)
    print(f"written: {target}")


def _tell_normalisation(target: Path, kept: str) -> None:
    if not kept:
        return
    mean, std = normalise.parse(kept)
    held = "recorded in the file" if target.suffix == SAFETENSORS else "not recorded in the file"
    print(f"note: its images are (image - {list(mean)}) / {list(std)}, image in [0, 1]; {held}")


def _image_shape(text: str | None) -> Shape | None:
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) != 3 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UserError(f"--image_shape is {text}; give HEIGHTxWIDTHxCHANNELS, e.g. 32x32x3")
    height, width, channels = map(int, sides)
    return height, width, channels


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))
