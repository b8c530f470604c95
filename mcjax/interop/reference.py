"""The architectures in PyTorch, with the tensor names of published code.

`python -m mcjax.interop.torch check` compares mcjax with them: a state dict is loaded into one of
them by its own names (`load_state_dict`, strict), so the table of names is checked as well. Written
from the papers and from lists of names. (benchmarks/torch_networks.py has functions with mcjax's
names, for timing.)

Sources: as the modules of `mcjax.models`; Garipov et al. 2018 for curves.
"""

import itertools
from math import comb
from typing import Any

import flax.linen
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d, relu

from mcjax.interop.layouts.layout import Layout

_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def build(
    module: flax.linen.Module, layout: Layout, image_shape: tuple[int, int, int]
) -> nn.Module:
    """The PyTorch network of a linen module, in evaluation mode, with a layout's names.

    Args:
        module: A module of `mcjax.models`.
        layout: The layout of the names.
        image_shape: (height, width, channels) of its images.

    Returns:
        A module that maps images [B, C, H, W] to logits [B, num_classes].
    """
    return _BUILDERS[layout.family](module, layout, image_shape).eval()


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, bias: bool = False) -> Any:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=bias)


class VGG(nn.Module):
    """dnn-mode-connectivity's VGG; in curve networks the dense layers have different names."""

    def __init__(self, m: Any, layout: Layout, image_shape: tuple[int, int, int]):
        super().__init__()
        self.published, self.curve = m.published, layout.curve
        sizes, hidden = m.channels, m.hidden
        self.convolutions = _VGG[m.depth]
        self.layer_blocks = nn.ModuleList()
        inputs = image_shape[2]
        for count, size in zip(self.convolutions, sizes, strict=True):
            block = nn.ModuleList()
            for _ in range(count):
                block.append(_conv(inputs, size, bias=True))
                if m.batch_norm:
                    block.append(nn.BatchNorm2d(size))
                inputs = size
            self.layer_blocks.append(block)
        height, width = layout.features_fn(*image_shape[:2])
        dense = [
            nn.Linear(inputs * height * width, hidden),
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, m.num_classes),
        ]
        if self.curve:
            self.fc1, self.fc2, self.fc3 = dense
        else:
            self.classifier = nn.Sequential(
                nn.Dropout(), dense[0], nn.ReLU(), nn.Dropout(), dense[1], nn.ReLU(), dense[2]
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits."""
        for block, count in zip(self.layer_blocks, self.convolutions, strict=True):
            layers = list(block.children())
            for layer in layers[:count] if self.published else layers:
                x = layer(x)
                if self.published or isinstance(layer, nn.BatchNorm2d) or len(layers) == count:
                    x = relu(x)
            if min(x.shape[2:]) >= 2:
                x = max_pool2d(x, 2)
        x = x.flatten(1)
        if not self.curve:
            return self.classifier(x)
        return self.fc3(relu(self.fc2(relu(self.fc1(x)))))


class ConvFC(nn.Module):
    """dnn-mode-connectivity's ConvFC."""

    def __init__(self, m: Any, layout: Layout, image_shape: tuple[int, int, int]):
        super().__init__()
        self.curve = layout.curve
        height, width = layout.features_fn(*image_shape[:2])
        widths = (image_shape[2], 32, 64, 128)
        convolutions = [_conv(a, b, 5, bias=True) for a, b in itertools.pairwise(widths)]
        dense = [
            nn.Linear(128 * height * width, 1000),
            nn.Linear(1000, 1000),
            nn.Linear(1000, m.num_classes),
        ]
        if self.curve:
            self.conv1, self.conv2, self.conv3 = convolutions
            self.fc4, self.fc5, self.fc6 = dense
        else:
            # Pools are applied in forward, because small images skip them; the numbering counts them.
            self.conv_part = nn.ModuleDict({str(3 * i): c for i, c in enumerate(convolutions)})
            self.fc_part = nn.Sequential(dense[0], nn.ReLU(), dense[1], nn.ReLU(), dense[2])

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits."""
        first = [self.conv1, self.conv2, self.conv3] if self.curve else self.conv_part.values()
        for convolution in first:
            x = relu(convolution(x))
            if min(x.shape[2:]) >= 3:
                x = max_pool2d(x, 3, 2)
        x = x.flatten(1)
        if not self.curve:
            return self.fc_part(x)
        return self.fc6(relu(self.fc5(relu(self.fc4(x)))))


class PreActivation(nn.Module):
    """A block that normalises before each convolution: PreResNet, Wide ResNet, PreActResNet."""

    def __init__(self, kind: str, curve: bool, inputs: int, features: int, stride: int):
        super().__init__()
        self.kind, bias = kind, kind == "wide_resnet"
        outputs, strides = features, (stride, 1)
        if kind == "bottleneck":
            outputs = 4 * features
            self.conv1 = _conv(inputs, features, 1)
            self.conv2 = _conv(features, features, 3, stride)
            self.bn3, self.conv3 = nn.BatchNorm2d(features), _conv(features, outputs, 1)
        else:
            strides = (1, stride) if kind == "wide_resnet" else (stride, 1)
            self.conv1 = _conv(inputs, features, 3, strides[0], bias)
            self.conv2 = _conv(features, features, 3, strides[1], bias)
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(features)
        self.name = "downsample" if kind in ("basic", "bottleneck") else "shortcut"
        if stride != 1 or inputs != outputs:
            shortcut = _conv(inputs, outputs, 1, stride, bias)
            self.add_module(self.name, shortcut if curve else nn.Sequential(shortcut))

    def forward(self, x: Tensor) -> Tensor:
        """Adds the block's output to the shortcut."""
        y = relu(self.bn1(x))
        if hasattr(self, self.name):
            x = getattr(self, self.name)(y if self.kind == "preactresnet" else x)
        y = self.conv2(relu(self.bn2(self.conv1(y))))
        if self.kind == "bottleneck":
            y = self.conv3(relu(self.bn3(y)))
        return x + y


class PostActivation(nn.Module):
    """A block that normalises after each convolution: ResNet."""

    def __init__(self, name: str, inputs: int, features: int, stride: int):
        super().__init__()
        self.name = name
        self.conv1, self.bn1 = _conv(inputs, features, 3, stride), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = _conv(features, features), nn.BatchNorm2d(features)
        if stride != 1 or inputs != features:
            shortcut = nn.Sequential(_conv(inputs, features, 1, stride), nn.BatchNorm2d(features))
            self.add_module(name, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the block's output to the shortcut."""
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + (getattr(self, self.name)(x) if hasattr(self, self.name) else x))


class Residual(nn.Module):
    """Stages of blocks, global average pooling and a dense layer."""

    def __init__(self, m: Any, layout: Layout, image_shape: tuple[int, int, int]):
        super().__init__()
        self.family = layout.family
        channels, kind = image_shape[2], layout.family
        if kind == "preresnet":
            kind = "bottleneck" if m._bottleneck else "basic"
            blocks = ((m.depth - 2) // (9 if m._bottleneck else 6),) * 3
        elif kind == "wide_resnet":
            blocks = ((m.depth - 4) // 6,) * 3
        else:
            blocks = m.blocks
        inputs = 16 if kind == "wide_resnet" else m.width
        width = 16 * m.width if kind == "wide_resnet" else m.width
        self.imagenet = kind == "resnet" and m.stem == "imagenet"
        size, stride = (7, 2) if self.imagenet else (3, 1)
        self.conv1 = _conv(channels, inputs, size, stride, bias=kind == "wide_resnet")
        if kind == "resnet":
            self.bn1 = nn.BatchNorm2d(inputs)
        for stage, count in enumerate(blocks):
            features, stage_blocks = width * 2**stage, nn.Sequential()
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                if kind == "resnet":
                    name = "downsample" if layout.code == "torchvision" else "shortcut"
                    stage_blocks.append(PostActivation(name, inputs, features, stride))
                else:
                    block = PreActivation(kind, layout.curve, inputs, features, stride)
                    stage_blocks.append(block)
                inputs = 4 * features if kind == "bottleneck" else features
            self.add_module(f"layer{stage + 1}", stage_blocks)
        self.stages = len(blocks)
        last = {"preresnet": "bn", "wide_resnet": "bn1"}.get(layout.family)
        if last:
            self.add_module(last, nn.BatchNorm2d(inputs))
        self.last = last
        fc = kind in ("basic", "bottleneck") or layout.code == "torchvision"
        self.logits = "fc" if fc else "linear"
        self.add_module(self.logits, nn.Linear(inputs, m.num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits."""
        x = self.conv1(x)
        if self.family == "resnet":
            x = relu(self.bn1(x))
        if self.imagenet:
            x = max_pool2d(x, 3, 2, padding=1)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        if self.last:
            x = relu(getattr(self, self.last)(x))
        return getattr(self, self.logits)(x.mean((2, 3)))


class VGGTorchvision(nn.Module):
    """torchvision's VGG."""

    def __init__(self, m: Any, layout: Layout, image_shape: tuple[int, int, int]):
        super().__init__()
        layers: list[nn.Module] = []
        inputs = image_shape[2]
        for block, count in enumerate(_VGG[m.depth]):
            for _ in range(count):
                size = m.width * min(2**block, 8)
                layers.append(_conv(inputs, size, bias=True))
                layers += [nn.BatchNorm2d(size)] if m.batch_norm else []
                layers.append(nn.ReLU())
                inputs = size
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(49 * inputs, m.hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(m.hidden, m.hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(m.hidden, m.num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits."""
        for layer in self.features:
            if not isinstance(layer, nn.MaxPool2d) or min(x.shape[2:]) >= 2:
                x = layer(x)
        return self.classifier(adaptive_avg_pool2d(x, 7).flatten(1))


class MLP(nn.Module):
    """Dense layers fc1, fc2, ..."""

    def __init__(self, m: Any, layout: Layout, image_shape: tuple[int, int, int]):
        super().__init__()
        widths = (int(np.prod(image_shape)), *m.hidden, m.num_classes)
        for i, (a, b) in enumerate(itertools.pairwise(widths), start=1):
            self.add_module(f"fc{i}", nn.Linear(a, b))

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits."""
        *hidden, last = self.children()
        x = x.flatten(1)
        for layer in hidden:
            x = relu(layer(x))
        return last(x)


class CNN(nn.Module):
    """mcjax's small convolutional network."""

    def __init__(self, m: Any, layout: Layout, image_shape: tuple[int, int, int]):
        super().__init__()
        inputs = image_shape[2]
        for i in range(3):
            self.add_module(f"conv{i + 1}", _conv(inputs, m.width * 2**i, bias=True))
            inputs = m.width * 2**i
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(inputs) if m.batch_norm else nn.Identity())
        height, width = layout.features_fn(*image_shape[:2])
        self.fc1 = nn.Linear(inputs * height * width, m.hidden)
        self.fc2 = nn.Linear(m.hidden, m.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images to logits."""
        for i in (1, 2, 3):
            x = relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
            if min(x.shape[2:]) >= 2:
                x = max_pool2d(x, 2)
        return self.fc2(relu(self.fc1(x.flatten(1))))


_BUILDERS: dict[str, Any] = {
    "vgg": VGG,
    "convfc": ConvFC,
    "preresnet": Residual,
    "wide_resnet": Residual,
    "preactresnet": Residual,
    "resnet": Residual,
    "vgg_torchvision": VGGTorchvision,
    "mlp": MLP,
    "cnn": CNN,
}


def tensors_at(tensors: dict[str, np.ndarray], t: float, kind: str) -> dict[str, np.ndarray]:
    """The state dict of a curve network at t, from a checkpoint's tensors, in double precision.

        w(t) = sum_j c_j(t) w_j,  c_j = C(n, j) t^j (1 - t)^(n - j)  or  max(0, 1 - |n t - j|)

    Args:
        tensors: As in the checkpoint: net.fc.weight_0, net.fc.weight_1, net.bn.running_mean, ...
        t: Position on the curve.
        kind: "bezier" or "polychain".

    Returns:
        fc.weight, bn.running_mean, ...
    """
    n = max(int(name.rpartition("_")[2]) for name in tensors if name.rpartition("_")[2].isdigit())
    sums: dict[str, Any] = {}
    for name, w in tensors.items():
        if name.startswith("coeff_layer."):
            continue
        name = name.removeprefix("net.")
        base, _, j = name.rpartition("_")
        if not j.isdigit():
            sums[name] = w
            continue
        bezier = comb(n, int(j)) * t ** int(j) * (1 - t) ** (n - int(j))
        c = bezier if kind == "bezier" else max(0.0, 1 - abs(n * t - int(j)))
        sums[base] = sums.get(base, 0) + c * w.astype(np.float64)
    return {name: w.astype(np.float32) if w.dtype == np.float64 else w for name, w in sums.items()}


def load(module: nn.Module, tensors: dict[str, np.ndarray]) -> nn.Module:
    """Loads a state dict strictly, except that batch counts may be missing."""
    held = {name: torch.from_numpy(np.array(w)) for name, w in tensors.items()}
    for name in module.state_dict():
        if name.endswith("num_batches_tracked"):
            held.setdefault(name, torch.zeros((), dtype=torch.int64))
    module.load_state_dict(held)
    return module
