"""Networks and curves out of PyTorch files, and into them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from mcjax import models, spec
from mcjax.curves import KINDS, Curve
from mcjax.errors import UserError
from mcjax.interop import files, layouts, normalise
from mcjax.interop.files import StateDict
from mcjax.interop.layouts import Layout, Tensors
from mcjax.interop.rows import Row, listed, to_tensors, to_variables, unmatched
from mcjax.network import Network, from_linen, normalised
from mcjax.tree import PyTree, check_same_structure

Shape = tuple[int, int, int]


class Form(NamedTuple):
    """What a file of tensors means.

    Attributes:
        module: The linen module.
        layout: The names.
        rows: The table of names.
        unused: Names that the file may have besides.
        arch: The architecture as --arch takes it.
    """

    module: nn.Module
    layout: Layout
    rows: list[Row]
    unused: tuple[str, ...]
    arch: str


class Loaded(NamedTuple):
    """A network out of a file.

    Attributes:
        network: Its functions, of images in [0, 1].
        variables: {"params", and "batch_stats" if it has them}.
        form: What the file means.
        state: What the file held; `save_network` writes another like it.
        notes: What the reader should know, a sentence each.
    """

    network: Network
    variables: dict[str, Any]
    form: Form
    state: StateDict
    notes: tuple[str, ...]


class LoadedCurve(NamedTuple):
    """A curve out of a file.

    Attributes:
        network: The functions of each of its points.
        curve: Its control points are trees of "params".
        batch_stats: The running statistics that the file has, one set for all t; {} if none. They
            belong to the t that the network last ran at: recompute them (`mcjax.batch_stats`).
        form: What the file means.
        state: What the file held.
        notes: What the reader should know.
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
        arch: NAME or NAME:option=value,...; None finds it out from names and shapes.
        image_shape: (height, width, channels) of its images; None takes 32x32 and the file's
            channels.
        normalisation: What its images were normalised by, see `mcjax.interop.normalise.parse`;
            None for images in [0, 1].

    Returns:
        The network.

    Raises:
        UserError: The file can't be read (see `read_state_dict`), holds a curve, or tensors of
            another or an unknown architecture.
    """
    state = files.read_state_dict(path)
    if is_curve(state.tensors):
        raise UserError(
            f"{path} holds a curve, not one network; mcjax.interop.torch.load_curve reads it"
        )
    shape = image_shape or default_shape(state.tensors)
    form = form_of(state.tensors, arch, shape, str(path))
    variables = to_variables(state.tensors, form.rows, unused=form.unused, source=str(path))
    network = _network(form, shape, normalisation)
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
    """Reads a curve that dnn-mode-connectivity or model-sanitization has trained.

    Its checkpoints hold the control points side by side: net.fc.weight_0, net.fc.weight_1, ...

    Args:
        path: The file.
        arch: As for `load_network`.
        image_shape: As for `load_network`.
        normalisation: As for `load_network`.
        kind: "bezier" or "polychain"; None reads it from the file.

    Returns:
        The curve.

    Raises:
        UserError: As `load_network`; the file holds no curve, or does not say of what kind it is.

    Source: Garipov et al. 2018, the class CurveNet of their code.
    """
    state = files.read_state_dict(path)
    if not is_curve(state.tensors):
        raise UserError(f"{path} holds no curve; mcjax.interop.torch.load_network reads it")
    if kind is None and not any(name.startswith("coeff_layer.") for name in state.tensors):
        raise UserError(f"{path} does not say what kind of curve it is; give kind='bezier' say")
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
    """Writes variables to a file like the one that a network came from.

    Args:
        path: A new file; its suffix decides on the kind, .pt or .safetensors say.
        variables: The variables, of the same architecture.
        like: What `load_network` returned: its names, keys and prefix are used, and tensors that
            mcjax does not have (counts of batches) stay as they are there.

    Raises:
        UserError: Variables of another architecture; it can't be written.
    """
    check_same_structure(like.variables, variables, ("the file", "the variables"))
    tensors = to_tensors(variables, like.form.rows)
    files.write_state_dict(path, files.with_tensors(like.state, tensors))


def export_network(
    path: Path, variables: PyTree, arch: str, image_shape: Shape, *, code: str | None = None
) -> None:
    """Writes mcjax's variables as a state dict that published PyTorch code can load.

    Args:
        path: A new file; its suffix decides on the kind, .pt or .safetensors say.
        variables: {"params", and "batch_stats" if it has them}.
        arch: The architecture.
        image_shape: (height, width, channels) of its images.
        code: Whose names to give: see `mcjax.interop.layouts.LAYOUTS`; None takes the first that
            has the architecture.

    Raises:
        UserError: Variables of another architecture, an unknown one, no such names.
    """
    name, options = spec.parse(arch)
    found = [lay for lay in layouts.find(models.family(name)) if code in (None, lay.code)]
    if not found:
        known = " and ".join(sorted({lay.code for lay in layouts.find(models.family(name))}))
        raise UserError(f"{code or 'no code'} has no names for {name}; {known or 'none'} has")
    layout = found[0]
    some = models.create(name, num_classes=2, **options)
    try:
        num_classes = variables["params"][layout.logits_fn(some)]["kernel"].shape[1]
    except (KeyError, TypeError):
        raise UserError(f"the variables are not those of {arch}; give their architecture") from None
    module = models.create(name, num_classes=int(num_classes), **options)
    shapes = layouts.shapes_of(module, image_shape)
    check_same_structure(shapes, variables, (f"architecture {arch}", "the variables"))
    tensors = to_tensors(variables, layouts.rows_of(layout, module, image_shape))
    files.write_state_dict(path, files.fresh(tensors))


def save_curve(path: Path, curve: Curve, batch_stats: PyTree, like: LoadedCurve) -> None:
    """Writes a curve to a file like the one that it came from.

    Args:
        path: A new file.
        curve: Of the same kind, architecture and number of points.
        batch_stats: Running statistics, {} if none.
        like: What `load_curve` returned.

    Raises:
        UserError: Another architecture or number of points; it can't be written.
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
    """Whether these are a CurveNet's tensors."""
    return all(name.startswith(("net.", "coeff_layer.")) for name in tensors) and any(
        re.search(r"\.(weight|bias)_0$", name) for name in tensors
    )


def control_points(tensors: Tensors, source: str = "the file") -> list[dict[str, np.ndarray]]:
    """The state dict of each control point of a CurveNet, with the statistics that they share.

    Args:
        tensors: Its tensors, by name: net.fc.weight_0, net.bn.running_mean, coeff_layer.range, ...
        source: What to call them in messages.

    Returns:
        A state dict for each point: fc.weight, bn.running_mean, ...

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
                f"{source}: its control points differ: point {j} lacks tensors or has more"
            )
    return [{**points[j], **shared} for j in sorted(points)]


def default_shape(tensors: Tensors) -> Shape:
    """32x32 and as many channels as the first convolution has; 28x28x1 for one channel."""
    first = next((w for w in tensors.values() if w.ndim == 4), None)
    channels = 3 if first is None else int(first.shape[1])
    return (28, 28, 1) if channels == 1 else (32, 32, channels)


def form_of(
    tensors: Tensors, arch: str | None, image_shape: Shape, source: str, *, curve: bool = False
) -> Form:
    """What tensors mean: of a given architecture, or of the one that they fit.

    Raises:
        UserError: None fits, several do, or the given one has other names.
    """
    if arch is None:
        forms = fitting(tensors, image_shape, curve=curve)
        if len(forms) == 1:
            return forms[0]
        if forms:
            raise UserError(
                f"{source} fits {' and '.join(form.arch for form in forms)}; choose with --arch"
            )
        raise UserError(
            f"{source} fits no architecture for {image_shape} images (its tensors: "
            f"{listed(list(tensors), 3)}); give --arch and the images' shape, or a table of names "
            "(docs/pytorch.md)"
        )
    form = nearest_form(tensors, arch, image_shape, source, curve=curve)
    _check_published(form, tensors, source)
    return form


def nearest_form(
    tensors: Tensors, arch: str, image_shape: Shape, source: str, *, curve: bool = False
) -> Form:
    """The form of a given architecture, with the names that match best.

    Raises:
        UserError: The tensors have no logits by any names known.
    """
    name, options = spec.parse(arch)
    candidates = layouts.find(models.family(name), curve=curve)
    found: list[tuple[int, Form]] = []
    for layout in candidates:
        form = _form(layout, name, options, tensors, image_shape)
        if form is not None:
            missing, unknown = unmatched(tensors, form.rows, form.unused)
            found.append((len(missing) + len(unknown), form))
    if not found:
        known = " or ".join(layout.code for layout in candidates) or "no code"
        raise UserError(
            f"{source} has no {name} with the names of {known}; its tensors are "
            f"{listed(list(tensors), 3)}; give its own architecture, or a table of names "
            "(docs/pytorch.md)"
        )
    return min(found, key=lambda item: item[0])[1]


def fitting(tensors: Tensors, image_shape: Shape, *, curve: bool = False) -> list[Form]:
    """The architectures that tensors fit by name and shape.

    Args:
        tensors: A state dict.
        image_shape: (height, width, channels) of the images.
        curve: Look among the networks of curves.

    Returns:
        A form for each.
    """
    forms = []
    for layout in layouts.LAYOUTS:
        if layout.curve != curve:
            continue
        try:
            options = layout.options_fn(tensors)
            form = _form(layout, layout.family, options, tensors, image_shape)
        except (UserError, LookupError, ValueError, ZeroDivisionError):
            continue  # another network's tensors
        if form is None or any(unmatched(tensors, form.rows, form.unused)):
            continue
        variables = to_variables(tensors, form.rows, unused=form.unused)
        try:
            check_same_structure(layouts.shapes_of(form.module, image_shape), variables)
        except UserError:
            continue
        forms.append(form._replace(arch=models.describe(form.module)))
    return forms


def _form(
    layout: Layout, name: str, options: dict[str, Any], tensors: Tensors, image_shape: Shape
) -> Form | None:
    """The form of these names, None if they have no logits."""
    some = models.create(name, num_classes=2, **options)
    logits = layout.layer_fn(some, layout.logits_fn(some)) + ".weight"
    if logits not in tensors or tensors[logits].ndim != 2:
        return None
    module = models.create(name, num_classes=max(2, len(tensors[logits])), **options)
    rows = layouts.rows_of(layout, module, image_shape)
    unused: tuple[str, ...] = ()
    if getattr(module, "published", False):
        whole = layouts.rows_of(layout, module.clone(published=False), image_shape)
        unused = tuple(row.torch for row in whole if row not in rows)
    return Form(module, layout, rows, unused, spec.write(name, options))


def _check_published(form: Form, tensors: Tensors, source: str) -> None:
    """Refuses VGGs with BatchNorm that are read otherwise than they were run."""
    module: Any = form.module
    if form.layout.family != "vgg" or not module.batch_norm:
        return
    try:
        skipped = layouts.never_run(tensors)
    except KeyError:
        return  # tensors are missing, which is said elsewhere
    if skipped and not module.published:
        raise UserError(
            f"{source}: half of its normalisations have never been run: the published code's VGGs "
            f"with BatchNorm skip them, and their convolutions; give --arch {form.arch}"
            f"{',' if ':' in form.arch else ':'}published=True"
        )
    if module.published and not skipped:
        raise UserError(
            f"{source}: all of its normalisations have been run, so it is not one of the published "
            "code's networks that skip half of them; leave published=True out"
        )


def _network(form: Form, image_shape: Shape, normalisation: str | None) -> Network:
    network = from_linen(form.module, image_shape)
    return normalised(network, *normalise.parse(normalisation)) if normalisation else network


def _check(variables: PyTree, form: Form, image_shape: Shape, path: Path) -> None:
    expected = layouts.shapes_of(form.module, image_shape)
    check_same_structure(expected, variables, (f"architecture {form.arch}", str(path)))


def _notes(state: StateDict, form: Form, arch: str | None) -> tuple[str, ...]:
    notes: Sequence[str] = state.notes
    if arch is None:
        notes = [f"its names and shapes are those of {form.arch} ({form.layout.code})", *notes]
    if form.unused:
        notes = [*notes, f"{len(form.unused)} tensors are of layers that its code skips"]
    return tuple(notes)
