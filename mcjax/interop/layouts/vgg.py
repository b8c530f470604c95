"""VGG of dnn-mode-connectivity: blocks of layers, BatchNorm layers between the convolutions."""

from collections.abc import Callable
from typing import Any

from mcjax.interop.layouts.layout import Layout, Tensors
from mcjax.interop.layouts.shared import GARIPOV, count, halved, named, of_block, width


def _vgg_layer(dense: dict[str, str]) -> Callable[[Any, str], str]:
    def layer_fn(module: Any, layer: str) -> str:
        if layer in dense:
            return dense[layer]
        kind, block, i = of_block(layer)
        index = 2 * (i - 1) + (kind == "bn") if module.batch_norm else i - 1
        return f"layer_blocks.{block - 1}.{index}"

    return layer_fn


def _vgg_options(tensors: Tensors) -> dict[str, Any]:
    convolutions = [name for name, w in tensors.items() if w.ndim == 4]
    batch_norm = count(tensors, r"layer_blocks\..*running_mean") > 0
    first, last = (width(tensors, f"layer_blocks.{block}.0.weight") for block in (0, 4))
    return {
        "depth": 3 + len(convolutions),
        "batch_norm": batch_norm,
        **({"wide": True} if last == 4 * first else {"width": first}),
        "published": batch_norm and never_run(tensors),
    }


def never_run(tensors: Tensors) -> bool:
    """Whether the layers that the published VGGs skip were never run.

    The published code's networks with BatchNorm skip the second half of each block. A BatchNorm layer
    that was never run still has its initial statistics, 0 and 1.
    """

    def untouched(layer: str) -> bool:
        mean, var = (tensors[f"{layer}.{name}"] for name in ("running_mean", "running_var"))
        return bool(not mean.any() and (var == 1).all())

    run, skipped = ([f"layer_blocks.{block}.{i}" for block in (0, 1)] for i in (1, 3))
    return all(map(untouched, skipped)) and not any(map(untouched, run))


LAYOUTS = (
    Layout(
        GARIPOV,
        "vgg",
        _vgg_layer({"fc1": "classifier.1", "fc2": "classifier.4", "fc3": "classifier.6"}),
        _vgg_options,
        logits_fn=named("fc3"),
        flat="fc1",
        features_fn=halved(5),
    ),
    Layout(
        GARIPOV,
        "vgg",
        _vgg_layer({f"fc{i}": f"fc{i}" for i in (1, 2, 3)}),
        _vgg_options,
        logits_fn=named("fc3"),
        flat="fc1",
        features_fn=halved(5),
        curve=True,
    ),
)
