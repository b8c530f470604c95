"""Reads networks and curves from PyTorch files, and writes them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcjax import models
from mcjax.core import named_options as spec
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree, check_same_structure
from mcjax.curves import KINDS, Curve
from mcjax.interop import files, layouts, normalise
from mcjax.interop.files import StateDict
from mcjax.interop.form import Form, default_shape, form_of
from mcjax.interop.layouts.layout import Shape, Tensors, rows_of, shapes_of
from mcjax.interop.rows import to_tensors, to_variables
from mcjax.models.network import Network, from_linen, normalised


class Loaded(NamedTuple):
    """A network read from a file.

    Attributes:
        network: The network, for images in [0, 1].
        variables: {"params", and "batch_stats" if it has them}.
        form: The interpretation of the file.
        state: The contents of the file; `save_network` writes a similar one.
        notes: Sentences to show to the user.
    """

    network: Network
    variables: dict[str, Any]
    form: Form
    state: StateDict
    notes: tuple[str, ...]


class LoadedCurve(NamedTuple):
    """A curve read from a file.

    Attributes:
        network: The network of each point.
        curve: The curve; its control points are trees of "params".
        batch_stats: The file's running statistics, one set for all t, or {}. They belong to the t at
            which the network was last run: recompute them (`mcjax.curves.batch_stats`).
        form: The interpretation of the file.
        state: The contents of the file.
        notes: Sentences to show to the user.
    """

    network: Network
    curve: Curve
    batch_stats: PyTree
    form: Form
    state: StateDict
    notes: tuple[str, ...]


def load_network(
    path: Path,
    arch: str | None = None,
    *,
    image_shape: Shape | None = None,
    normalisation: str | None = None,
) -> Loaded:
    """Reads a network from a PyTorch or safetensors file.

    Args:
        path: The file.
        arch: NAME or NAME:option=value,...; None infers it from names and shapes.
        image_shape: (height, width, channels) of its images; None for 32x32 with the file's
            channels.
        normalisation: The normalisation of its images, see `mcjax.interop.normalise.parse`; None
            for that recorded in the file (.safetensors), else images in [0, 1].

    Returns:
        The network.

    Raises:
        UserError: The file can't be read (see `read_state_dict`), holds a curve, or its architecture
            is unknown or not `arch`.
    """
    state = files.read_state_dict(path)
    if is_curve(state.tensors):
        raise UserError(
            f"{path} holds a curve, not a network; read it by mcjax.interop.torch.load_curve"
        )
    shape = image_shape or default_shape(state.tensors)
    form = form_of(state.tensors, arch, shape, str(path))
    variables = to_variables(state.tensors, form.rows, unused=form.unused, source=str(path))
    network = _network(form, shape, normalisation or state.normalise)
    _check(variables, form, shape, path)
    return Loaded(network, variables, form, state, _notes(state, form, arch))


def load_curve(
    path: Path,
    arch: str | None = None,
    *,
    image_shape: Shape | None = None,
    normalisation: str | None = None,
    kind: str | None = None,
) -> LoadedCurve:
    """Reads a curve trained by dnn-mode-connectivity or model-sanitization.

    Its checkpoints hold all control points: net.fc.weight_0, net.fc.weight_1, ...

    Args:
        path: The file.
        arch: See `load_network`.
        image_shape: See `load_network`.
        normalisation: See `load_network`.
        kind: "bezier" or "polychain"; None reads it from the file.

    Returns:
        The curve.

    Raises:
        UserError: As `load_network`; the file holds no curve, or its kind is unknown.

    Source: Garipov et al. 2018, the class CurveNet of their code.
    """
    state = files.read_state_dict(path)
    if not is_curve(state.tensors):
        raise UserError(f"{path} holds no curve; read it by mcjax.interop.torch.load_network")
    if kind is None and not any(name.startswith("coeff_layer.") for name in state.tensors):
        raise UserError(f"{path} does not say what kind of curve it is; give kind, e.g. 'bezier'")
    kind = kind or ("bezier" if "coeff_layer.binom" in state.tensors else "polychain")
    points = control_points(state.tensors, str(path))
    shape = image_shape or default_shape(points[0])
    form = form_of(points[0], arch, shape, str(path), curve=True)
    trees = [
        to_variables(point, form.rows, unused=form.unused, source=f"point {j} of {path}")
        for j, point in enumerate(points)
    ]
    network = _network(form, shape, normalisation)
    for tree in trees:
        _check(tree, form, shape, path)
    params = [tree["params"] for tree in trees]
    curve = KINDS[kind](params[0], tuple(params[1:-1]), params[-1])
    notes = _notes(state, form, arch)
    return LoadedCurve(network, curve, trees[0].get("batch_stats", {}), form, state, notes)


def save_network(path: Path, variables: PyTree, like: Loaded) -> None:
    """Writes variables to a file like the one that the network was read from.

    Args:
        path: A new file; its suffix (e.g. .pt or .safetensors) sets the format.
        variables: The variables, of the same architecture.
        like: The result of `load_network`: its names, keys and prefix are used, and tensors that
            mcjax does not use (batch counts) are copied.

    Raises:
        UserError: The variables have a different architecture, or the file can't be written.
    """
    check_same_structure(like.variables, variables, ("the file", "the variables"))
    tensors = to_tensors(variables, like.form.rows)
    files.write_state_dict(path, files.with_tensors(like.state, tensors))


def export_network(
    path: Path,
    variables: PyTree,
    arch: str,
    image_shape: Shape,
    *,
    code: str | None = None,
    normalise: str = "",
) -> None:
    """Writes mcjax's variables as a state dict that published PyTorch code can load.

    Args:
        path: A new file; its suffix (e.g. .pt or .safetensors) sets the format.
        variables: {"params", and "batch_stats" if it has them}.
        arch: The architecture.
        image_shape: (height, width, channels) of its images.
        code: The code base whose names to use, see `mcjax.interop.layouts.LAYOUTS`; None for the
            first one with this architecture.
        normalise: The normalisation of its images, recorded in .safetensors (not in .pt).

    Raises:
        UserError: The architecture is unknown or not that of the variables, or the code base does
            not have it.
    """
    name, options = spec.parse(arch)
    found = [lay for lay in layouts.find(models.family(name)) if code in (None, lay.code)]
    if not found:
        known = ", ".join(sorted({lay.code for lay in layouts.find(models.family(name))}))
        raise UserError(f"unknown code {code!r} for {name}; use one of {known or '(none)'}")
    layout = found[0]
    some = models.create(name, num_classes=2, **options)
    try:
        num_classes = variables["params"][layout.logits_fn(some)]["kernel"].shape[1]
    except (KeyError, TypeError):
        raise UserError(f"the variables do not fit {arch}; give their architecture") from None
    module = models.create(name, num_classes=int(num_classes), **options)
    shapes = shapes_of(module, image_shape)
    check_same_structure(shapes, variables, (f"architecture {arch}", "the variables"))
    tensors = to_tensors(variables, rows_of(layout, module, image_shape))
    files.write_state_dict(path, files.fresh(tensors)._replace(normalise=normalise))


def save_curve(path: Path, curve: Curve, batch_stats: PyTree, like: LoadedCurve) -> None:
    """Writes a curve to a file like the one that it was read from.

    Args:
        path: A new file.
        curve: A curve of the same kind, architecture and number of points.
        batch_stats: Running statistics, or {}.
        like: The result of `load_curve`.

    Raises:
        UserError: The architecture or number of points differs, or the file can't be written.
    """
    check_same_structure(like.curve.points, curve.points, ("the file", "the curve"))
    tensors: dict[str, np.ndarray] = {}
    for j, params in enumerate(curve.points):
        tree = {"params": params, **({"batch_stats": batch_stats} if batch_stats else {})}
        for name, w in to_tensors(tree, like.form.rows).items():
            shared = name.rpartition(".")[2] in _BUFFERS
            tensors[f"net.{name}" if shared else f"net.{name}_{j}"] = w
    files.write_state_dict(path, files.with_tensors(like.state, tensors))


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def is_curve(tensors: Tensors) -> bool:
    """Whether these are the tensors of a CurveNet."""
    return all(name.startswith(("net.", "coeff_layer.")) for name in tensors) and any(
        re.search(r"\.(weight|bias)_0$", name) for name in tensors
    )


def control_points(tensors: Tensors, source: str = "the file") -> list[dict[str, np.ndarray]]:
    """The state dict of each control point of a CurveNet, with the shared running statistics.

    Args:
        tensors: Tensors by name: net.fc.weight_0, net.bn.running_mean, coeff_layer.range, ...
        source: Their name in messages.

    Returns:
        One state dict per point: fc.weight, bn.running_mean, ...

    Raises:
        UserError: Tensors have different numbers of points.

    Example:
        >>> points = control_points({"net.fc.bias_0": np.zeros(1), "net.fc.bias_1": np.ones(1)})
        >>> points[1]
        {'fc.bias': array([1.])}
    """
    points: dict[int, dict[str, np.ndarray]] = {}
    shared = {}
    for name, w in tensors.items():
        if name.startswith("coeff_layer."):
            continue
        name = name.removeprefix("net.")
        match = re.fullmatch(r"(.*\.(?:weight|bias))_(\d+)", name)
        if match:
            points.setdefault(int(match[2]), {})[match[1]] = w
        else:
            shared[name] = w
    for j in range(max(points) + 1):
        lacking = points[0].keys() - points.get(j, {}).keys()
        if lacking or points[j].keys() - points[0].keys():
            raise UserError(
                f"{source}: control points differ: point {j} lacks tensors or has extra ones; check the file"
            )
    return [{**points[j], **shared} for j in sorted(points)]


def _network(form: Form, image_shape: Shape, normalisation: str | None) -> Network:
    network = from_linen(form.module, image_shape)
    return normalised(network, *normalise.parse(normalisation)) if normalisation else network


def _check(variables: PyTree, form: Form, image_shape: Shape, path: Path) -> None:
    expected = shapes_of(form.module, image_shape)
    check_same_structure(expected, variables, (f"architecture {form.arch}", str(path)))


def _notes(state: StateDict, form: Form, arch: str | None) -> tuple[str, ...]:
    notes: Sequence[str] = state.notes
    if arch is None:
        notes = [f"its names and shapes are those of {form.arch} ({form.layout.code})", *notes]
    if form.unused:
        notes = [*notes, f"{len(form.unused)} tensors belong to layers that its code skips"]
    return tuple(notes)
