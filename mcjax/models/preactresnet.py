"""PreActResNet-18: pre-activation residual blocks in four stages, as used in backdoor benchmarks.

Unlike `preresnet` it has four stages, starting at 64 channels, a shortcut that branches off after the
first normalisation, and no normalisation after the last block.

Source: He et al. 2016, "Identity mappings in deep residual networks", in the form of BackdoorBench
(Wu et al. 2022), which is also that of WaNet's code and many others.
"""

import flax.linen as nn
import jax

from mcjax.models.batch_norm import BatchNorm
from mcjax.models.layers import Dense, conv
from mcjax.models.limits import BLOCKS, WIDTH, check_options


class PreActResNet(nn.Module):
    """Stages of basic blocks with width, 2 * width, 4 * width, ... channels.

    Args:
        num_classes: Number of logits.
        blocks: Blocks per stage; 2, 2, 2, 2 has 18 layers, 3, 4, 6, 3 has 34.
        width: Channels of the first stage.
    """

    num_classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64

    piecewise_linear = True

    def __post_init__(self):
        check_options("preactresnet", self, blocks=BLOCKS, width=WIDTH)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        x = conv(self.width, 3, use_bias=False, name="conv1")(x)
        for stage, blocks in enumerate(self.blocks):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"layer{stage + 1}_{i}"
                x = PreActBlock(self.width * 2**stage, stride, name=name)(x, train)
        return Dense(self.num_classes, name="linear")(x.mean(axis=(1, 2)))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is the identity or a projection after bn1.

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
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(self.features, 1, stride=self.stride, use_bias=False, name="shortcut")(y)
        y = conv(self.features, 3, stride=self.stride, use_bias=False, name="conv1")(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train))
        return conv(self.features, 3, use_bias=False, name="conv2")(y) + x
