"""Finds the architecture of a state dict from its tensors' names and shapes."""

from typing import Any, NamedTuple

import flax.linen as nn

from mcjax import models
from mcjax.core import named_options as spec
from mcjax.core.errors import UserError, listed
from mcjax.core.tree import check_same_structure
from mcjax.interop import layouts
from mcjax.interop.layouts import vgg
from mcjax.interop.layouts.layout import Layout, Shape, Tensors, rows_of, shapes_of
from mcjax.interop.rows import Row, to_variables, unmatched


class FitsNoArchitecture(UserError):
    """The tensors fit no architecture of mcjax."""


class Form(NamedTuple):
    """The interpretation of a state dict.

    Attributes:
        module: The linen module.
        layout: The layout of its names.
        rows: The table of names.
        unused: Names that the file may have in addition.
        arch: The architecture as a spec, NAME:option=value,...
    """

    module: nn.Module
    layout: Layout
    rows: list[Row]
    unused: tuple[str, ...]
    arch: str


def default_shape(tensors: Tensors) -> Shape:
    """32x32 with the channels of the first convolution; 28x28x1 for one channel."""
    first = next((w for w in tensors.values() if w.ndim == 4), None)
    channels = 3 if first is None else int(first.shape[1])
    return (28, 28, 1) if channels == 1 else (32, 32, channels)


def form_of(
    tensors: Tensors, arch: str | None, image_shape: Shape, source: str, *, curve: bool = False
) -> Form:
    """The form of tensors, for a given architecture or for the one that they fit.

    Raises:
        UserError: No architecture or several fit, or the given one has different names.
    """
    if arch is None:
        forms = fitting(tensors, image_shape, curve=curve, source=source)
        if len(forms) == 1:
            return forms[0]
        if forms:
            raise UserError(
                f"{source} fits {' and '.join(form.arch for form in forms)}; choose one by arch"
            )
        raise FitsNoArchitecture(
            f"{source} fits no architecture for images of {'x'.join(map(str, image_shape))} (its "
            f"tensors: {listed(list(tensors), 3)}); give the image size that it was trained on, its "
            "arch, a table of names, or, if you have the module, the .pt2 file that torch.export saves "
            "(docs/pytorch.md)"
        )
    form = nearest_form(tensors, arch, image_shape, source, curve=curve)
    _check_published(form, tensors, source)
    return form


def nearest_form(
    tensors: Tensors, arch: str, image_shape: Shape, source: str, *, curve: bool = False
) -> Form:
    """The form of a given architecture, with the best-matching names.

    Raises:
        UserError: The tensors have no logits layer under any known names.
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
            f"{listed(list(tensors), 3)}; give its architecture, or a table of names "
            "(docs/pytorch.md)"
        )
    return min(found, key=lambda item: item[0])[1]


def fitting(
    tensors: Tensors, image_shape: Shape, *, curve: bool = False, source: str = "the state dict"
) -> list[Form]:
    """Finds the architectures that tensors fit by name and shape.

    Args:
        tensors: A state dict.
        image_shape: (height, width, channels) of the images.
        curve: Search the networks of curves.
        source: Name of the state dict in messages.

    Returns:
        One form per architecture.

    Raises:
        UserError: All names fit, but a weight has a wrong number of axes or a wrong dtype.
    """
    forms = []
    for layout in layouts.LAYOUTS:
        if layout.curve != curve:
            continue
        try:
            options = layout.options_fn(tensors)
            form = _form(layout, layout.family, options, tensors, image_shape)
        except (UserError, LookupError, ValueError, ZeroDivisionError):
            continue  # tensors of a different network
        if form is None or any(unmatched(tensors, form.rows, form.unused)):
            continue
        variables = to_variables(tensors, form.rows, unused=form.unused, source=source)
        try:
            check_same_structure(shapes_of(form.module, image_shape), variables)
        except UserError:
            continue
        forms.append(form._replace(arch=models.describe(form.module)))
    return forms


def _form(
    layout: Layout, name: str, options: dict[str, Any], tensors: Tensors, image_shape: Shape
) -> Form | None:
    """The form for a layout, or None if the tensors lack the logits layer."""
    some = models.create(name, num_classes=2, **options)
    logits = layout.layer_fn(some, layout.logits_fn(some)) + ".weight"
    if logits not in tensors or tensors[logits].ndim != 2:
        return None
    module = models.create(name, num_classes=max(2, len(tensors[logits])), **options)
    rows = rows_of(layout, module, image_shape)
    unused: tuple[str, ...] = ()
    if getattr(module, "published", False):
        whole = rows_of(layout, module.clone(published=False), image_shape)
        unused = tuple(row.torch for row in whole if row not in rows)
    return Form(module, layout, rows, unused, spec.write(name, options))


def _check_published(form: Form, tensors: Tensors, source: str) -> None:
    """Checks that VGGs with BatchNorm are read with the layers that they were trained with."""
    module: Any = form.module
    if form.layout.family != "vgg" or not module.batch_norm:
        return
    try:
        skipped = vgg.never_run(tensors)
    except KeyError:
        return  # missing tensors are reported elsewhere
    if skipped and not module.published:
        raise UserError(
            f"{source}: half of its BatchNorm layers were never run, because the published code's VGGs "
            f"with BatchNorm skip them and their convolutions; use arch {form.arch}"
            f"{',' if ':' in form.arch else ':'}published=True"
        )
    if module.published and not skipped:
        raise UserError(
            f"{source}: all of its BatchNorm layers were run, so it is not one of the published code's "
            "networks that skip half of them; remove published=True"
        )
