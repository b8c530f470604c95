"""The same numbers in both frameworks' processes, drawn there and not sent: images, control points."""

import dataclasses
import json
from pathlib import Path

import numpy as np

POINTS = ("start", "bend", "end")
PGD_STEPS, EPS, STEP_SIZE = 10, 8 / 255, 2 / 255
WEIGHT_DECAY, LEARNING_RATE, MOMENTUM = 5e-4, 0.01, 0.9
T = 0.3
POWER_PRODUCTS = 20  # Hessian-vector products of power iteration, as in Zhao et al.'s code


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        image: Height, width, channels.
        train: Images that BatchNorm is recomputed on and the path is evaluated on.
        test: Further images that it is evaluated on.
        points: Of the path.
        evaluation_batch: Images per batch there, and per attack.
        batch: Images of a training step.
        steps: Training steps a call.
        hessian: Images whose largest eigenvalue is taken.
        repeats: Timed calls, of which the median counts.
    """

    image: tuple[int, int, int] = (32, 32, 3)
    train: int = 50_000
    test: int = 10_000
    points: int = 61
    evaluation_batch: int = 1000
    batch: int = 128
    steps: int = 50
    hessian: int = 1000
    repeats: int = 3


FULL = Sizes()
# A whole path of the widest network is 60 times the operations of VGG16's: fewer images, and said so.
WIDE = dataclasses.replace(FULL, train=2000, test=1000, points=8, steps=10, hessian=100)
TINY = Sizes((8, 8, 3), 24, 12, 3, 12, 4, 2, 4, 1)


def sizes(network: str) -> Sizes:
    """The sizes for a network."""
    return {"tiny": TINY, "wide_resnet28x10": WIDE}.get(network, FULL)


def images(size: Sizes, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Random images, uint8 [N, H, W, C], and labels, int32 [N]."""
    number = size.train if split == "train" else size.test
    rng = np.random.default_rng([split == "train", number])
    x = rng.integers(0, 256, (number, *size.image), np.uint8)
    return x, (np.arange(number) % 10).astype(np.int32)


def variables(shapes: dict[str, list[int]], point: str) -> dict[str, np.ndarray]:
    """Weights of a control point: kernels of variance 2 / fan-in, statistics of a new network.

    Args:
        shapes: {"params/conv1/kernel": [3, 3, 3, 64], ..}; from `read_shapes`.
        point: "start", "bend" or "end".

    Returns:
        Arrays by the same names, float32.
    """
    rng = np.random.default_rng(POINTS.index(point))
    arrays = {}
    for name, shape in sorted(shapes.items()):
        leaf = name.rsplit("/", 1)[1]
        if leaf == "kernel":
            spread = np.sqrt(2 / np.prod(shape[:-1]))
            value = rng.standard_normal(shape, np.float32) * np.float32(spread)
        elif leaf in ("scale", "var"):
            value = np.ones(shape, np.float32)
        else:
            value = np.zeros(shape, np.float32)
        arrays[name] = value
    return arrays


def read_shapes(file: Path) -> dict[str, list[int]]:
    """Names and shapes of a network's variables, which only mcjax knows, from the file of `beside`."""
    shapes: dict[str, list[int]] = json.loads(file.read_text())
    return shapes
