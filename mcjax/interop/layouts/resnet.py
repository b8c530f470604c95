"""ResNet-18 and its like: torchvision, pytorch-cifar, and BackdoorBench's with pre-activation."""

from typing import Any

from mcjax.interop.layouts.layout import Layout, Tensors
from mcjax.interop.layouts.shared import blocks, named, residual_layer, width


def _preact_options(tensors: Tensors) -> dict[str, Any]:
    return {"blocks": blocks(tensors), "width": width(tensors, "conv1.weight")}


def _resnet_options(tensors: Tensors) -> dict[str, Any]:
    size = tensors["conv1.weight"].shape[-1]
    return {**_preact_options(tensors), "stem": "imagenet" if size == 7 else "cifar"}


LAYOUTS = (
    Layout(
        "BackdoorBench",
        "preactresnet",
        residual_layer({"shortcut": "shortcut.0"}),
        _preact_options,
        logits_fn=named("linear"),
    ),
    Layout(
        "torchvision",
        "resnet",
        residual_layer({"shortcut": "downsample.0", "shortcut_bn": "downsample.1"}),
        _resnet_options,
        logits_fn=named("fc"),
    ),
    Layout(
        "pytorch-cifar",
        "resnet",
        residual_layer({"shortcut": "shortcut.0", "shortcut_bn": "shortcut.1", "fc": "linear"}),
        _resnet_options,
        logits_fn=named("fc"),
    ),
)
