"""Networks by name.

Each network is a Flax linen module that maps images [B, H, W, C] in [0, 1] to logits
[B, num_classes], `module(x, train=False)`. Networks do not normalise their input, so attacks work on
images in [0, 1]. Weights are in the collection "params", running statistics in "batch_stats".

To add a family, write its module in a file here and add a line to `FAMILIES` (docs/adding.md).
"""

import dataclasses
import difflib
from typing import Any

import flax.linen as nn
import numpy as np

from mcjax import spec
from mcjax.errors import UserError, shown
from mcjax.fields import check
from mcjax.models.convfc import ConvFC
from mcjax.models.limits import CLASSES
from mcjax.models.preactresnet import PreActResNet
from mcjax.models.preresnet import PreResNet
from mcjax.models.resnet import ResNet
from mcjax.models.small import CNN, MLP
from mcjax.models.vgg import VGG
from mcjax.models.vgg_torchvision import VGGTorchvision
from mcjax.models.wide_resnet import WideResNet

FAMILIES: dict[str, type[nn.Module]] = {
    "mlp": MLP,
    "cnn": CNN,
    "convfc": ConvFC,
    "vgg": VGG,
    "preresnet": PreResNet,
    "wide_resnet": WideResNet,
    "preactresnet": PreActResNet,
    "resnet": ResNet,
    "vgg_torchvision": VGGTorchvision,
}

MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet8": ("preresnet", {"depth": 8}),
    "vgg16": ("vgg", {"depth": 16}),
    "vgg19": ("vgg", {"depth": 19}),
    "vgg16_bn": ("vgg", {"depth": 16, "batch_norm": True}),
    "vgg19_bn": ("vgg", {"depth": 19, "batch_norm": True}),
    "vgg16_wide": ("vgg", {"depth": 16, "wide": True}),
    "vgg19_wide": ("vgg", {"depth": 19, "wide": True}),
    "preresnet20": ("preresnet", {"depth": 20}),
    "preresnet26": ("preresnet", {"depth": 26}),
    "preresnet56": ("preresnet", {"depth": 56}),
    "preresnet110": ("preresnet", {"depth": 110}),
    "preresnet164": ("preresnet", {"depth": 164}),
    "wide_resnet28x10": ("wide_resnet", {"depth": 28, "width": 10}),
    "preactresnet18": ("preactresnet", {"blocks": (2, 2, 2, 2)}),
    "resnet18": ("resnet", {"blocks": (2, 2, 2, 2)}),
    "vgg16_torchvision": ("vgg_torchvision", {"depth": 16}),
    "vgg19_torchvision": ("vgg_torchvision", {"depth": 19}),
    "vgg16_bn_torchvision": ("vgg_torchvision", {"depth": 16, "batch_norm": True}),
    "vgg19_bn_torchvision": ("vgg_torchvision", {"depth": 19, "batch_norm": True}),
}


def names() -> tuple[str, ...]:
    """The names accepted by `create`, families first."""
    return (*FAMILIES, *MEMBERS)


def create(name: str, /, *, num_classes: int, **options: Any) -> nn.Module:
    """Creates a network.

    Args:
        name: One of `names()`.
        num_classes: Number of logits.
        **options: Options of the family's class; a name such as vgg16_bn presets some of them.

    Returns:
        A linen module; `mcjax.network.from_linen` makes a `Network` from it.

    Raises:
        UserError: The name or an option is unknown, or an option's value is invalid.

    Example:
        >>> create("preresnet", num_classes=10, depth=26).depth
        26
        >>> create("vgg16_bn", num_classes=10).batch_norm
        True
    """
    if not isinstance(name, str) or name not in names():
        near = difflib.get_close_matches(str(name), names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown network {shown(name)}; {hint}choose from {', '.join(names())}")
    family, preset = MEMBERS.get(name, (name, {}))
    module = FAMILIES[family]
    check(f"{name}: num_classes", num_classes, CLASSES)
    num_classes = int(num_classes)

    defaults = {
        field.name: field.default
        for field in dataclasses.fields(module)
        if field.name not in ("num_classes", "parent", "name", *preset)
    }
    for option, value in options.items():
        if option not in defaults:
            accepted = ", ".join(defaults) or "none"
            raise UserError(f"{name}: unknown option {shown(option)}; options are: {accepted}")
        value = _plain(value)
        if isinstance(defaults[option], tuple) and _is_a(value, int):
            value = (value,)  # hidden=48: one layer
        if not _is_a(value, type(defaults[option])):
            kind = type(defaults[option]).__name__
            raise UserError(f"{name}: {option} is {shown(value)}; give a value of type {kind}")
        options[option] = value
    return module(num_classes=num_classes, **preset, **options)


def family(name: str) -> str:
    """The family of a name.

    Example:
        >>> family("vgg16_bn")
        'vgg'
    """
    create(name, num_classes=2)  # raises if the name is unknown
    return MEMBERS.get(name, (name, {}))[0]


def describe(module: nn.Module) -> str:
    """A network's architecture as the shortest spec that commands accept.

    Example:
        >>> describe(create("preresnet", num_classes=10, depth=20, width=4))
        'preresnet20:width=4'
    """
    found = []
    for name in names():
        cls, preset = MEMBERS.get(name, (name, {}))
        if type(module) is not FAMILIES[cls]:
            continue
        if all(getattr(module, option) == value for option, value in preset.items()):
            options = {
                field.name: getattr(module, field.name)
                for field in dataclasses.fields(module)
                if field.name not in ("num_classes", "parent", "name", *preset)
                and getattr(module, field.name) != field.default
            }
            found.append((len(options), -len(preset), spec.write(name, options)))
    return min(found)[-1] if found else type(module).__name__


def _plain(value: Any) -> Any:
    """Converts numpy scalars to Python's and lists to tuples, because modules are hashed."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


def _is_a(value: Any, kind: type) -> bool:
    """Whether value is of type `kind`; an int is accepted as a float."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
