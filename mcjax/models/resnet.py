"""ResNets such as ResNet-18: residual blocks that normalise after each convolution.

Source: He et al. 2015, "Deep residual learning for image recognition", in the form of torchvision.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mcjax.core.fields import choice
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.layers import Dense, conv
from mcjax.models.limits import BLOCKS, WIDTH, check_options
from mcjax.models.pooling import max_pool


class ResNet(nn.Module):
    """Stages of basic blocks with width, 2 * width, 4 * width, ... channels.

    Args:
        num_classes: Number of logits.
        blocks: Blocks per stage; 2, 2, 2, 2 has 18 layers, 3, 4, 6, 3 has 34.
        width: Channels of the first stage.
        stem: "imagenet": a 7x7 convolution and a max-pool, each of stride 2, so the first stage sees
            a quarter of the image's side (torchvision); or "cifar": a 3x3 convolution at full size,
            as in most code for small images.
    """

    num_classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    stem: str = "imagenet"

    piecewise_linear = True

    def __post_init__(self):
        check_options("resnet", self, blocks=BLOCKS, width=WIDTH, stem=choice("imagenet", "cifar"))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = conv(self.width, size, stride=stride, use_bias=False, name="conv1")(x)
        x = BatchNorm(name="bn1")(x, train)
        if self.stem == "imagenet":
            # Zeros do not change the result, because ReLU follows: the same values, a quarter of the pixels.
            x = max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
        x = nn.relu(x)
        for stage, blocks in enumerate(self.blocks):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"layer{stage + 1}_{i}"
                x = ResidualBlock(self.width * 2**stage, stride, name=name)(x, train)
        return Dense(self.num_classes, name="fc")(x.mean(axis=(1, 2)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a ReLU follows the sum.

    Args:
        features: Channels of both convolutions and of the output.
        stride: Stride of the first convolution.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        y = conv(self.features, 3, stride=self.stride, use_bias=False, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train))
        y = conv(self.features, 3, use_bias=False, name="conv2")(y)
        y = BatchNorm(name="bn2")(y, train)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(self.features, 1, stride=self.stride, use_bias=False, name="shortcut")(x)
            x = BatchNorm(name="shortcut_bn")(x, train)
        return nn.relu(x + y)
