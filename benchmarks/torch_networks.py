"""The benchmarks' networks in plain PyTorch, as functions of a flat dict of tensors.

The names are those of mcjax's parameter trees, so both frameworks compute on the same numbers.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]


def _conv(p: Tensors, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    w = p[f"{name}/kernel"]
    return F.conv2d(x, w, p.get(f"{name}/bias"), stride, padding=w.shape[-1] // 2)


def _dense(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, p[f"{name}/kernel"], p[f"{name}/bias"])


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1).flatten(1)  # mcjax's order of features


def convfc(
    p: Tensors, stats: Tensors, x: torch.Tensor, train: bool, momentum: float = 0.1
) -> torch.Tensor:
    """mcjax.models' convfc."""
    for i in (1, 2, 3):
        x = F.max_pool2d(F.relu(_conv(p, f"conv{i}", x)), 3, 2)
    x = _flat(x)
    x = F.relu(_dense(p, "fc1", x))
    x = F.relu(_dense(p, "fc2", x))
    return _dense(p, "fc3", x)


def vgg16(
    p: Tensors, stats: Tensors, x: torch.Tensor, train: bool, momentum: float = 0.1
) -> torch.Tensor:
    """mcjax.models' vgg, depth 16, without BatchNorm and dropout."""
    for block, convs in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, convs + 1):
            x = F.relu(_conv(p, f"conv{block}_{i}", x))
        x = F.max_pool2d(x, 2)
    x = _flat(x)
    x = F.relu(_dense(p, "fc1", x))
    x = F.relu(_dense(p, "fc2", x))
    return _dense(p, "fc3", x)


def preresnet(
    p: Tensors, stats: Tensors, x: torch.Tensor, train: bool, momentum: float = 0.1
) -> torch.Tensor:
    """mcjax.models' preresnet of two-layer blocks, and wide_resnet, whose second layer has the stride.

    In training mode it updates `stats` in place.
    """
    wide = "linear/kernel" in p

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var = stats[f"{name}/mean"], stats[f"{name}/var"]
        return F.batch_norm(x, mean, var, p[f"{name}/scale"], p[f"{name}/bias"], train, momentum)

    x = _conv(p, "conv1", x)
    for stage in (1, 2, 3):
        i = 0
        while f"{(name := f'layer{stage}_{i}')}/conv1/kernel" in p:
            stride = 2 if stage > 1 and i == 0 else 1
            first, second = (1, stride) if wide else (stride, 1)
            y = _conv(p, f"{name}/conv1", F.relu(norm(f"{name}/bn1", x)), first)
            y = _conv(p, f"{name}/conv2", F.relu(norm(f"{name}/bn2", y)), second)
            if f"{name}/shortcut/kernel" in p:
                x = _conv(p, f"{name}/shortcut", x, stride)
            x = x + y
            i += 1
    x = F.relu(norm("bn1" if wide else "bn", x))
    return _dense(p, "linear" if wide else "fc", x.mean((2, 3)))


NETWORKS: dict[str, Callable[..., torch.Tensor]] = {
    "convfc": convfc,
    "preresnet26": preresnet,
    "tiny": preresnet,
    "wide_resnet28x10": preresnet,
    "vgg16": vgg16,
}
