"""VGG of torchvision: layers numbered in one Sequential."""

from typing import Any

from mcjax.interop.layouts.layout import Layout, Tensors
from mcjax.interop.layouts.shared import count, named, of_block, width
from mcjax.models.vgg_torchvision import CONVOLUTIONS

_VGG_DENSE = {"fc1": "classifier.0", "fc2": "classifier.3", "fc3": "classifier.6"}


def _torchvision_vgg_layer(module: Any, layer: str) -> str:
    if layer in _VGG_DENSE:
        return _VGG_DENSE[layer]
    kind, block, i = of_block(layer)
    per_convolution = 3 if module.batch_norm else 2  # with BatchNorm and ReLU
    before = sum(per_convolution * n + 1 for n in CONVOLUTIONS[module.depth][: block - 1])
    return f"features.{before + per_convolution * (i - 1) + (kind == 'bn')}"


def _torchvision_vgg_options(tensors: Tensors) -> dict[str, Any]:
    return {
        "depth": 3 + sum(w.ndim == 4 for w in tensors.values()),
        "batch_norm": count(tensors, r"features\..*running_mean") > 0,
        "width": width(tensors, "features.0.weight"),
        "hidden": width(tensors, "classifier.0.weight"),
    }


LAYOUTS = (
    Layout(
        "torchvision",
        "vgg_torchvision",
        _torchvision_vgg_layer,
        _torchvision_vgg_options,
        logits_fn=named("fc3"),
        flat="fc1",
        features_fn=lambda height, width: (7, 7),
    ),
)
