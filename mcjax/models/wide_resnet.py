"""Wide residual networks: fewer, wider pre-activation blocks.

Source: Zagoruyko and Komodakis 2016, in the form of Garipov et al. 2018: the second convolution of
a block has the stride, every convolution has a bias, and weights have PyTorch's default
initialisation. One difference: their last normalisation has PyTorch momentum 0.9 (the others 0.1),
presumably by mistake; here all are the same.
"""

import flax.linen as nn
import jax

from mcjax.errors import UserError
from mcjax.fields import whole
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.layers import Dense, conv, torch_uniform
from mcjax.models.limits import DEPTH, RATE, check_options


class WideResNet(nn.Module):
    """Three stages of n blocks with 16, 32 and 64 times `width` channels; depth = 6 n + 4.

    Args:
        num_classes: Number of logits.
        depth: Number of layers with weights, including shortcuts.
        width: Widening factor.
        dropout_rate: Dropout rate between the two convolutions of a block.
    """

    num_classes: int
    depth: int = 28
    width: int = 10
    dropout_rate: float = 0.0

    piecewise_linear = True

    def __post_init__(self):
        width = whole(1, 1000)  # times 64
        check_options("wide_resnet", self, depth=DEPTH, width=width, dropout_rate=RATE)
        if self.depth < 10 or self.depth % 6 != 4:
            near = 6 * max(1, round((self.depth - 4) / 6)) + 4
            raise UserError(f"wide_resnet: depth is {self.depth}; it must be 6n + 4, e.g. {near}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        x = _conv(x, 16, 3, name="conv1")
        for stage in range(3):
            for i in range((self.depth - 4) // 6):
                x = WideBlock(
                    features=16 * self.width * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    dropout_rate=self.dropout_rate,
                    name=f"layer{stage + 1}_{i}",
                )(x, train)
        x = nn.relu(BatchNorm(name="bn1")(x, train))
        return Dense(self.num_classes, name="linear")(x.mean(axis=(1, 2)))


class WideBlock(nn.Module):
    """Two 3x3 convolutions with dropout between them, and a shortcut.

    Args:
        features: Channels of both convolutions and of the output.
        stride: Stride of the second convolution.
        dropout_rate: Dropout rate.
    """

    features: int
    stride: int
    dropout_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        y = nn.relu(BatchNorm(name="bn1")(x, train))
        y = _conv(y, self.features, 3, name="conv1")
        y = nn.Dropout(self.dropout_rate, deterministic=not train)(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train))
        y = _conv(y, self.features, 3, stride=self.stride, name="conv2")
        if self.stride != 1 or x.shape[-1] != self.features:
            x = _conv(x, self.features, 1, stride=self.stride, name="shortcut")
        return x + y


def _conv(x: jax.Array, features: int, kernel_size: int, *, name: str, stride: int = 1):
    init = torch_uniform(kernel_size**2 * x.shape[-1])
    layer = conv(features, kernel_size, stride=stride, kernel_init=init, bias_init=init, name=name)
    return layer(x)
