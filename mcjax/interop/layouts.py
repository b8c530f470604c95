"""The layouts of published PyTorch code for the networks in `mcjax.models`.

A layout names the layers of a family and infers the options of a state dict's network. Curve
checkpoints of dnn-mode-connectivity have separate layouts, because some layers of its curve networks
have different names.

Sources (of names only): timgaripov/dnn-mode-connectivity and IBM/model-sanitization (models/*.py),
pytorch/vision (models/resnet.py, vgg.py), SCLBD/BackdoorBench (models/preact_resnet.py) and
kuangliu/pytorch-cifar (models/resnet.py).
"""

import re
from collections.abc import Callable
from typing import Any

from mcjax.interop.layout import Layout, Tensors
from mcjax.models.vgg_torchvision import CONVOLUTIONS


def find(family: str, *, curve: bool = False) -> list[Layout]:
    """The layouts of a family, most common first; mcjax's own names are always among them."""
    return [lay for lay in LAYOUTS if lay.family == family and lay.curve == curve]


def _count(tensors: Tensors, pattern: str) -> int:
    """The number of names that fully match a pattern."""
    return sum(re.fullmatch(pattern, name) is not None for name in tensors)


def _width(tensors: Tensors, name: str) -> int:
    return int(tensors[name].shape[0])


# VGG of dnn-mode-connectivity: blocks of layers, BatchNorm layers between the convolutions.


def _vgg_layer(dense: dict[str, str]) -> Callable[[Any, str], str]:
    def layer_fn(module: Any, layer: str) -> str:
        if layer in dense:
            return dense[layer]
        kind, block, i = _of_block(layer)
        index = 2 * (i - 1) + (kind == "bn") if module.batch_norm else i - 1
        return f"layer_blocks.{block - 1}.{index}"

    return layer_fn


def _of_block(layer: str) -> tuple[str, int, int]:
    match = re.fullmatch(r"(conv|bn)(\d)_(\d)", layer)
    assert match, layer
    return match[1], int(match[2]), int(match[3])


def _vgg_options(tensors: Tensors) -> dict[str, Any]:
    convolutions = [name for name, w in tensors.items() if w.ndim == 4]
    batch_norm = _count(tensors, r"layer_blocks\..*running_mean") > 0
    return {
        "depth": 3 + len(convolutions),
        "batch_norm": batch_norm,
        "wide": _width(tensors, "layer_blocks.0.0.weight") == 160,
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


def _halved(times: int) -> Callable[[int, int], tuple[int, int]]:
    def features_fn(height: int, width: int) -> tuple[int, int]:
        for _ in range(times):
            if min(height, width) >= 2:
                height, width = height // 2, width // 2
        return height, width

    return features_fn


# Residual networks: block i of stage s is layer{s}.{i}.


def _residual_layer(renamed: dict[str, str]) -> Callable[[Any, str], str]:
    def layer_fn(module: Any, layer: str) -> str:
        block, _, inner = layer.rpartition("/")
        inner = renamed.get(inner, inner)
        return f"{block.replace('_', '.')}.{inner}" if block else inner

    return layer_fn


def _blocks(tensors: Tensors) -> tuple[int, ...]:
    """The number of blocks per stage."""
    stages = [re.match(r"layer(\d+)\.(\d+)\.conv1\.weight", name) for name in tensors]
    found = [(int(m[1]), int(m[2])) for m in stages if m]
    return tuple(
        1 + max(i for s, i in found if s == stage)
        for stage in range(1, 1 + max(s for s, _ in found))
    )


def _preresnet_options(tensors: Tensors) -> dict[str, Any]:
    bottleneck = "layer1.0.conv3.weight" in tensors
    per_block, blocks = (9 if bottleneck else 6), _blocks(tensors)
    depth = per_block * blocks[0] + 2
    return {
        "depth": depth,
        "width": _width(tensors, "conv1.weight"),
        "block": "auto" if bottleneck == (depth >= 164) else _BLOCK[bottleneck],
    }


_BLOCK = {True: "bottleneck", False: "basic"}


def _wide_options(tensors: Tensors) -> dict[str, Any]:
    depth = 6 * _blocks(tensors)[0] + 4
    return {"depth": depth, "width": _width(tensors, "layer1.0.conv1.weight") // 16}


def _preact_options(tensors: Tensors) -> dict[str, Any]:
    return {"blocks": _blocks(tensors), "width": _width(tensors, "conv1.weight")}


def _resnet_options(tensors: Tensors) -> dict[str, Any]:
    size = tensors["conv1.weight"].shape[-1]
    return {**_preact_options(tensors), "stem": "imagenet" if size == 7 else "cifar"}


# Layers numbered in one Sequential.


def _numbered(names: dict[str, str]) -> Callable[[Any, str], str]:
    return lambda module, layer: names[layer]


def _pooled(height: int, width: int) -> tuple[int, int]:
    for _ in range(3):
        if min(height, width) >= 3:
            height, width = (height - 3) // 2 + 1, (width - 3) // 2 + 1
    return height, width


_VGG_DENSE = {"fc1": "classifier.0", "fc2": "classifier.3", "fc3": "classifier.6"}


def _torchvision_vgg_layer(module: Any, layer: str) -> str:
    if layer in _VGG_DENSE:
        return _VGG_DENSE[layer]
    kind, block, i = _of_block(layer)
    per_convolution = 3 if module.batch_norm else 2  # with BatchNorm and ReLU
    before = sum(per_convolution * n + 1 for n in CONVOLUTIONS[module.depth][: block - 1])
    return f"features.{before + per_convolution * (i - 1) + (kind == 'bn')}"


def _torchvision_vgg_options(tensors: Tensors) -> dict[str, Any]:
    return {
        "depth": 3 + sum(w.ndim == 4 for w in tensors.values()),
        "batch_norm": _count(tensors, r"features\..*running_mean") > 0,
        "width": _width(tensors, "features.0.weight"),
        "hidden": _width(tensors, "classifier.0.weight"),
    }


# mcjax's names, joined by dots.


def _dotted(module: Any, layer: str) -> str:
    return layer.replace("/", ".")


def _mlp_options(tensors: Tensors) -> dict[str, Any]:
    layers = _count(tensors, r"fc\d+\.weight")
    return {"hidden": tuple(_width(tensors, f"fc{i}.weight") for i in range(1, layers))}


def _cnn_options(tensors: Tensors) -> dict[str, Any]:
    return {
        "width": _width(tensors, "conv1.weight"),
        "hidden": _width(tensors, "fc1.weight"),
        "batch_norm": "bn1.running_mean" in tensors,
    }


def _named(layer: str) -> Callable[[Any], str]:
    return lambda module: layer


_GARIPOV = "dnn-mode-connectivity"

LAYOUTS = (
    Layout(
        _GARIPOV,
        "vgg",
        _vgg_layer({"fc1": "classifier.1", "fc2": "classifier.4", "fc3": "classifier.6"}),
        _vgg_options,
        logits_fn=_named("fc3"),
        flat="fc1",
        features_fn=_halved(5),
    ),
    Layout(
        _GARIPOV,
        "vgg",
        _vgg_layer({f"fc{i}": f"fc{i}" for i in (1, 2, 3)}),
        _vgg_options,
        logits_fn=_named("fc3"),
        flat="fc1",
        features_fn=_halved(5),
        curve=True,
    ),
    Layout(
        _GARIPOV,
        "preresnet",
        _residual_layer({"shortcut": "downsample.0"}),
        _preresnet_options,
        logits_fn=_named("fc"),
    ),
    Layout(
        _GARIPOV,
        "preresnet",
        _residual_layer({"shortcut": "downsample"}),
        _preresnet_options,
        logits_fn=_named("fc"),
        curve=True,
    ),
    Layout(
        _GARIPOV,
        "wide_resnet",
        _residual_layer({"shortcut": "shortcut.0"}),
        _wide_options,
        logits_fn=_named("linear"),
    ),
    Layout(
        _GARIPOV,
        "wide_resnet",
        _residual_layer({}),
        _wide_options,
        logits_fn=_named("linear"),
        curve=True,
    ),
    Layout(
        _GARIPOV,
        "convfc",
        _numbered(
            {f"conv{i}": f"conv_part.{3 * (i - 1)}" for i in (1, 2, 3)}
            | {f"fc{i}": f"fc_part.{2 * (i - 1)}" for i in (1, 2, 3)}
        ),
        lambda tensors: {},
        logits_fn=_named("fc3"),
        flat="fc1",
        features_fn=_pooled,
    ),
    Layout(
        _GARIPOV,
        "convfc",
        _numbered(
            {f"conv{i}": f"conv{i}" for i in (1, 2, 3)}
            | {f"fc{i}": f"fc{i + 3}" for i in (1, 2, 3)}
        ),
        lambda tensors: {},
        logits_fn=_named("fc3"),
        flat="fc1",
        features_fn=_pooled,
        curve=True,
    ),
    Layout(
        "BackdoorBench",
        "preactresnet",
        _residual_layer({"shortcut": "shortcut.0"}),
        _preact_options,
        logits_fn=_named("linear"),
    ),
    Layout(
        "torchvision",
        "resnet",
        _residual_layer({"shortcut": "downsample.0", "shortcut_bn": "downsample.1"}),
        _resnet_options,
        logits_fn=_named("fc"),
    ),
    Layout(
        "pytorch-cifar",
        "resnet",
        _residual_layer({"shortcut": "shortcut.0", "shortcut_bn": "shortcut.1", "fc": "linear"}),
        _resnet_options,
        logits_fn=_named("fc"),
    ),
    Layout(
        "torchvision",
        "vgg_torchvision",
        _torchvision_vgg_layer,
        _torchvision_vgg_options,
        logits_fn=_named("fc3"),
        flat="fc1",
        features_fn=lambda height, width: (7, 7),
    ),
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
        logits_fn=_named("fc2"),
        flat="fc1",
        features_fn=_halved(3),
    ),
)
"""All layouts; within a family, the most common first."""
