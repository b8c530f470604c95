"""Pre-activation ResNets of dnn-mode-connectivity."""

from typing import Any

from mcjax.interop.layouts.layout import Layout, Tensors
from mcjax.interop.layouts.shared import GARIPOV, blocks, named, residual_layer, width


def _preresnet_options(tensors: Tensors) -> dict[str, Any]:
    bottleneck = "layer1.0.conv3.weight" in tensors
    per_block, stages = (9 if bottleneck else 6), blocks(tensors)
    depth = per_block * stages[0] + 2
    return {
        "depth": depth,
        "width": width(tensors, "conv1.weight"),
        "block": "auto" if bottleneck == (depth >= 164) else _BLOCK[bottleneck],
    }


_BLOCK = {True: "bottleneck", False: "basic"}


LAYOUTS = (
    Layout(
        GARIPOV,
        "preresnet",
        residual_layer({"shortcut": "downsample.0"}),
        _preresnet_options,
        logits_fn=named("fc"),
    ),
    Layout(
        GARIPOV,
        "preresnet",
        residual_layer({"shortcut": "downsample"}),
        _preresnet_options,
        logits_fn=named("fc"),
        curve=True,
    ),
)
