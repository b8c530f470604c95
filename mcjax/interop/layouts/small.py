"""The small networks of mcjax, by its own names joined by dots."""

from typing import Any

from mcjax.interop.layouts.layout import Layout, Tensors
from mcjax.interop.layouts.shared import count, halved, named, width


def _dotted(module: Any, layer: str) -> str:
    return layer.replace("/", ".")


def _mlp_options(tensors: Tensors) -> dict[str, Any]:
    layers = count(tensors, r"fc\d+\.weight")
    return {"hidden": tuple(width(tensors, f"fc{i}.weight") for i in range(1, layers))}


def _cnn_options(tensors: Tensors) -> dict[str, Any]:
    return {
        "width": width(tensors, "conv1.weight"),
        "hidden": width(tensors, "fc1.weight"),
        "batch_norm": "bn1.running_mean" in tensors,
    }


LAYOUTS = (
    Layout(
        "mcjax",
        "mlp",
        _dotted,
        _mlp_options,
        logits_fn=lambda module: f"fc{len(module.hidden) + 1}",
        flat="fc1",
    ),
    Layout(
        "mcjax",
        "cnn",
        _dotted,
        _cnn_options,
        logits_fn=named("fc2"),
        flat="fc1",
        features_fn=halved(3),
    ),
)
