"""torchvision's VGG: an average pool to 7x7, then dense layers of 4096.

`vgg` is the variant for small images used in the papers on mode connectivity.

Source: Simonyan and Zisserman 2015; the average pool is torchvision's.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.errors import UserError, shown
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.layers import Dense, conv
from mcjax.models.limits import RATE, UNITS, WIDTH, check_options
from mcjax.models.pooling import max_pool_2x2

CONVOLUTIONS = {  # per block
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGGTorchvision(nn.Module):
    """Five blocks of 3x3 convolutions, each followed by a 2x2 max-pool, then three dense layers.

    A max-pool that would leave no pixel is skipped. The average pool repeats pixels if fewer than 7
    are left: for a 32x32 image a single pixel is repeated 49 times.

    Args:
        num_classes: Number of logits.
        depth: 11, 13, 16 or 19 layers with weights.
        batch_norm: Whether each convolution is followed by a batch normalisation.
        width: Channels of the first block; the others have 2, 4, 8 and 8 times as many.
        hidden: Width of both hidden dense layers.
        dropout_rate: Dropout rate at the output of both hidden dense layers.
    """

    num_classes: int
    depth: int = 16
    batch_norm: bool = False
    width: int = 64
    hidden: int = 4096
    dropout_rate: float = 0.0

    piecewise_linear = True

    def __post_init__(self):
        if self.depth not in CONVOLUTIONS:
            depth = shown(self.depth)
            raise UserError(f"vgg_torchvision: depth is {depth}; give 11, 13, 16 or 19")
        check_options("vgg_torchvision", self, width=WIDTH, hidden=UNITS, dropout_rate=RATE)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        for block, convolutions in enumerate(CONVOLUTIONS[self.depth], start=1):
            for i in range(1, convolutions + 1):
                x = conv(self.width * min(2 ** (block - 1), 8), 3, name=f"conv{block}_{i}")(x)
                if self.batch_norm:
                    x = BatchNorm(name=f"bn{block}_{i}")(x, train)
                if i == convolutions and min(x.shape[1:3]) >= 2:
                    x = max_pool_2x2(x)
                x = nn.relu(x)  # after the pool: the same values, a quarter of the pixels
        x = adaptive_mean_pool(x, 7)
        x = x.reshape(x.shape[0], -1)
        for i in (1, 2):
            x = nn.relu(Dense(self.hidden, name=f"fc{i}")(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return Dense(self.num_classes, name="fc3")(x)


def adaptive_mean_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages over size x size windows that cover an image of any shape.

    Along a side of n pixels, window i spans floor(i n / size) to ceil((i + 1) n / size): windows
    overlap if size does not divide n, and repeat pixels if n < size.

    Args:
        x: Images [B, H, W, C].
        size: Windows per side.

    Returns:
        Means [B, size, size, C].

    Example:
        >>> adaptive_mean_pool(jnp.arange(3.0).reshape(1, 3, 1, 1), 2)[0, :, 0, 0]
        Array([0.5, 1.5], dtype=float32)
    """

    def windows(n: int) -> np.ndarray:
        weights = np.zeros((size, n), np.float32)
        for i in range(size):
            inside = slice(i * n // size, -(-(i + 1) * n // size))
            weights[i, inside] = 1 / (inside.stop - inside.start)
        return weights

    rows, columns = (jnp.asarray(windows(n), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)
