"""ConvFC: three 5x5 convolutions, then three dense layers.

Source: Garipov et al. 2018 (the network `ConvFC` of their code).
"""

import flax.linen as nn
import jax

from mcjax.models.layers import Dense, conv
from mcjax.models.pooling import max_pool


class ConvFC(nn.Module):
    """Convolutions of 32, 64 and 128 channels with overlapping max-pools, then 1000-1000-C.

    The pools are 3x3 with stride 2 and no padding, so 32x32 images give 3 * 3 * 128 = 1152 features.
    A pool is skipped if the image is smaller than its window.

    Args:
        num_classes: Number of logits.
    """

    num_classes: int

    piecewise_linear = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        for i, features in enumerate((32, 64, 128), start=1):
            x = conv(features, 5, name=f"conv{i}")(x)
            if min(x.shape[1:3]) >= 3:
                x = max_pool(x, 3, 2)
            x = nn.relu(x)  # after the pool: the same values, a quarter of the pixels
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(Dense(1000, name="fc1")(x))
        x = nn.relu(Dense(1000, name="fc2")(x))
        return Dense(self.num_classes, name="fc3")(x)
