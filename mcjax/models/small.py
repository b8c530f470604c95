"""Small networks that are quick to train on a CPU, e.g. for tests.

The smallest residual network, `resnet8`, is `preresnet` of depth 8.
"""

import flax.linen as nn
import jax
from jax.nn.initializers import he_normal

from mcjax.models.batch_norm import BatchNorm
from mcjax.models.layers import Dense, conv
from mcjax.models.limits import HIDDEN, UNITS, WIDTH, check_options
from mcjax.models.pooling import max_pool_2x2


class MLP(nn.Module):
    """A multi-layer perceptron with ReLU.

    Args:
        num_classes: Number of logits.
        hidden: Widths of the hidden layers.
    """

    num_classes: int
    hidden: tuple[int, ...] = (128, 128)

    piecewise_linear = True

    def __post_init__(self):
        check_options("mlp", self, hidden=HIDDEN)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden, start=1):
            x = nn.relu(Dense(width, name=f"fc{i}")(x))
        return Dense(self.num_classes, name=f"fc{len(self.hidden) + 1}")(x)


class CNN(nn.Module):
    """Three 3x3 convolutions with ReLU and 2x2 max-pools, then a hidden dense layer.

    Good for Fashion-MNIST (28x28) and the 8x8 handwritten digits. A pool that would leave no pixel is
    skipped.

    Args:
        num_classes: Number of logits.
        width: Channels of the first convolution; the others have 2 * width and 4 * width.
        hidden: Width of the hidden dense layer.
        batch_norm: Batch normalisation between each convolution and its ReLU.
    """

    num_classes: int
    width: int = 32
    hidden: int = 128
    batch_norm: bool = False

    piecewise_linear = True

    def __post_init__(self):
        check_options("cnn", self, width=WIDTH, hidden=UNITS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        for i in range(3):
            # Fan-in, because widths grow fast: 0.91 test accuracy after three epochs of Fashion-MNIST,
            # compared with 0.90 for the fan-out initialisation of the papers' networks.
            layer = conv(self.width * 2**i, 3, kernel_init=he_normal(), name=f"conv{i + 1}")
            x = layer(x)
            if self.batch_norm:
                x = BatchNorm(name=f"bn{i + 1}")(x, train=train)
            if min(x.shape[1:3]) >= 2:
                x = max_pool_2x2(x)
            x = nn.relu(x)  # after the pool: the same values, a quarter of the pixels
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(Dense(self.hidden, name="fc1")(x))
        return Dense(self.num_classes, name="fc2")(x)
