"""What several families share: names of layers, and sizes that shapes tell."""

import re
from collections.abc import Callable
from typing import Any

from mcjax.interop.layouts.layout import Tensors

GARIPOV = "dnn-mode-connectivity"


def count(tensors: Tensors, pattern: str) -> int:
    """The number of names that fully match a pattern."""
    return sum(re.fullmatch(pattern, name) is not None for name in tensors)


def width(tensors: Tensors, name: str) -> int:
    """The outputs of the layer that a weight belongs to."""
    return int(tensors[name].shape[0])


def named(layer: str) -> Callable[[Any], str]:
    """A `logits_fn` of networks whose last layer always has the same name."""
    return lambda module: layer


def halved(times: int) -> Callable[[int, int], tuple[int, int]]:
    """A `features_fn` of networks that halve their images so many times."""

    def features_fn(height: int, width: int) -> tuple[int, int]:
        for _ in range(times):
            if min(height, width) >= 2:
                height, width = height // 2, width // 2
        return height, width

    return features_fn


def of_block(layer: str) -> tuple[str, int, int]:
    """The kind, block and number of a layer such as conv2_1."""
    match = re.fullmatch(r"(conv|bn)(\d)_(\d)", layer)
    assert match, layer
    return match[1], int(match[2]), int(match[3])


def residual_layer(renamed: dict[str, str]) -> Callable[[Any, str], str]:
    """A `layer_fn` of residual networks: block i of stage s is layer{s}.{i}."""

    def layer_fn(module: Any, layer: str) -> str:
        block, _, inner = layer.rpartition("/")
        inner = renamed.get(inner, inner)
        return f"{block.replace('_', '.')}.{inner}" if block else inner

    return layer_fn


def blocks(tensors: Tensors) -> tuple[int, ...]:
    """The number of blocks per stage."""
    stages = [re.match(r"layer(\d+)\.(\d+)\.conv1\.weight", name) for name in tensors]
    found = [(int(m[1]), int(m[2])) for m in stages if m]
    return tuple(
        1 + max(i for s, i in found if s == stage)
        for stage in range(1, 1 + max(s for s, _ in found))
    )
