"""The layouts of published PyTorch code for the networks in `mcjax.models`, one file per family.

A layout names the layers of a family and infers the options of a state dict's network. Curve
checkpoints of dnn-mode-connectivity have separate layouts, because some layers of its curve networks
have different names. A new family is a file here and its name in the tuple below.

Sources (of names only): timgaripov/dnn-mode-connectivity and IBM/model-sanitization (models/*.py),
pytorch/vision (models/resnet.py, vgg.py), SCLBD/BackdoorBench (models/preact_resnet.py) and
kuangliu/pytorch-cifar (models/resnet.py).
"""

from mcjax.interop.layouts import (
    convfc,
    preresnet,
    resnet,
    small,
    vgg,
    vgg_torchvision,
    wide_resnet,
)
from mcjax.interop.layouts.layout import Layout

FAMILIES = (vgg, preresnet, wide_resnet, convfc, resnet, vgg_torchvision, small)
LAYOUTS: tuple[Layout, ...] = tuple(layout for family in FAMILIES for layout in family.LAYOUTS)
"""All layouts; within a family, the most common first."""


def find(family: str, *, curve: bool = False) -> list[Layout]:
    """The layouts of a family, most common first; mcjax's own names are always among them."""
    return [layout for layout in LAYOUTS if layout.family == family and layout.curve == curve]
