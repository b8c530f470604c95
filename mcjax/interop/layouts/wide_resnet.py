"""Wide ResNets of dnn-mode-connectivity."""

from typing import Any

from mcjax.interop.layouts.layout import Layout, Tensors
from mcjax.interop.layouts.shared import GARIPOV, blocks, named, residual_layer, width


def _wide_options(tensors: Tensors) -> dict[str, Any]:
    depth = 6 * blocks(tensors)[0] + 4
    return {"depth": depth, "width": width(tensors, "layer1.0.conv1.weight") // 16}


LAYOUTS = (
    Layout(
        GARIPOV,
        "wide_resnet",
        residual_layer({"shortcut": "shortcut.0"}),
        _wide_options,
        logits_fn=named("linear"),
    ),
    Layout(
        GARIPOV,
        "wide_resnet",
        residual_layer({}),
        _wide_options,
        logits_fn=named("linear"),
        curve=True,
    ),
)
