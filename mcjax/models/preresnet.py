"""Residual networks with pre-activation (normalise, ReLU, convolve) for small images.

Source: He et al. 2016, "Identity mappings in deep residual networks". A shortcut that changes the
shape is a 1x1 convolution without normalisation, as in Garipov et al. 2018. The "ResNet" of
Zhao et al. 2020 has depth 26, although their code calls the class PreResNet110.
"""

import flax.linen as nn
import jax

from mcjax.errors import UserError
from mcjax.fields import choice
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.layers import Dense, conv
from mcjax.models.limits import DEPTH, WIDTH, check_options


class PreResNet(nn.Module):
    """Three stages of residual blocks with width, 2 * width and 4 * width channels.

    Basic blocks have two 3x3 convolutions: depth = 6 n + 2 with n blocks per stage. Bottleneck
    blocks have 1x1, 3x3 and 1x1 convolutions and four times as many output channels:
    depth = 9 n + 2.

    Args:
        num_classes: Number of logits.
        depth: Number of layers with weights: 20, 26, 56, 110 (basic), 164 (bottleneck), ...
        width: Channels of the first stage.
        block: "basic", "bottleneck", or "auto": bottleneck for depth 164 and above. Garipov et al.
            use bottlenecks for depth 44 and above, so their PreResNet110 is depth=110,
            block="bottleneck".
    """

    num_classes: int
    depth: int = 26
    width: int = 16
    block: str = "auto"

    piecewise_linear = True

    def __post_init__(self):
        block = choice("auto", "basic", "bottleneck")
        check_options("preresnet", self, block=block, depth=DEPTH, width=WIDTH)
        layers = 9 if self._bottleneck else 6
        if self.depth < layers + 2 or self.depth % layers != 2:
            kind = "bottleneck" if self._bottleneck else "basic"
            near = layers * max(1, round((self.depth - 2) / layers)) + 2
            raise UserError(
                f"preresnet: depth is {self.depth}; {kind} blocks need {layers}n + 2, e.g. {near}"
            )
        super().__post_init__()

    @property
    def _bottleneck(self) -> bool:
        return self.block == "bottleneck" or (self.block == "auto" and self.depth >= 164)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        block = BottleneckBlock if self._bottleneck else BasicBlock
        blocks_per_stage = (self.depth - 2) // (9 if self._bottleneck else 6)

        x = conv(self.width, 3, use_bias=False, name="conv1")(x)
        for stage in range(3):
            for i in range(blocks_per_stage):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"layer{stage + 1}_{i}"
                x = block(self.width * 2**stage, stride, name=name)(x, train)
        x = nn.relu(BatchNorm(name="bn")(x, train))
        return Dense(self.num_classes, name="fc")(x.mean(axis=(1, 2)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        features: Channels of both convolutions and of the output.
        stride: Stride of the first convolution.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        y = nn.relu(BatchNorm(name="bn1")(x, train))
        y = conv(self.features, 3, stride=self.stride, use_bias=False, name="conv1")(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train))
        y = conv(self.features, 3, use_bias=False, name="conv2")(y)
        return y + _shortcut(x, self.features, self.stride)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut.

    Args:
        features: Channels of the first two convolutions; the output has four times as many.
        stride: Stride of the 3x3 convolution.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, 4 * features]."""
        y = nn.relu(BatchNorm(name="bn1")(x, train))
        y = conv(self.features, 1, use_bias=False, name="conv1")(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train))
        y = conv(self.features, 3, stride=self.stride, use_bias=False, name="conv2")(y)
        y = nn.relu(BatchNorm(name="bn3")(y, train))
        y = conv(4 * self.features, 1, use_bias=False, name="conv3")(y)
        return y + _shortcut(x, 4 * self.features, self.stride)


def _shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    """The identity, or a 1x1 convolution if the block changes the shape."""
    if stride == 1 and x.shape[-1] == features:
        return x
    return conv(features, 1, stride=stride, use_bias=False, name="shortcut")(x)
