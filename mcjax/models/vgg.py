"""VGG networks for small images, with and without batch normalisation.

Source: Simonyan and Zisserman 2015; the dense layers are those of Garipov et al. 2018, and `wide`
is the wide network of Zhao et al. 2020. Their VGGs with batch normalisation run only half of their
layers (a `zip` of layers with activations stops early). Here every convolution runs and is followed
by its normalisation, unless `published` is True.
"""

import flax.linen as nn
import jax

from mcjax.core.errors import UserError, shown
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.layers import Dense, conv
from mcjax.models.limits import RATE, WIDTH, check_options
from mcjax.models.pooling import max_pool_2x2

_CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # per block
_CHANNELS = {False: (1, 2, 4, 8, 8), True: (1, 2, 4, 4, 4)}  # times the width, by `wide`
_WIDTH, _WIDE = 64, 160


class VGG(nn.Module):
    """Five blocks of 3x3 convolutions, each followed by a 2x2 max-pool, then three dense layers.

    A pool that would leave no pixel is skipped, so images may be smaller than 32x32.

    Args:
        num_classes: Number of logits.
        depth: 16 or 19 layers with weights.
        batch_norm: Whether each convolution is followed by a batch normalisation.
        wide: 160-320-640-640-640 channels and dense layers of 1280, instead of
            64-128-256-512-512 and 512.
        width: Channels of the first block without `wide`; all other sizes scale with it.
        dropout_rate: Dropout rate at the input of both hidden dense layers.
        published: Run only the layers that the published code runs with batch normalisation, for
            networks trained with it: the first n of a block's n convolutions and n normalisations
            (alternating), each followed by a ReLU.
    """

    num_classes: int
    depth: int = 16
    batch_norm: bool = False
    wide: bool = False
    width: int = _WIDTH
    dropout_rate: float = 0.0
    published: bool = False

    piecewise_linear = True

    def __post_init__(self):
        if self.depth not in _CONVOLUTIONS:
            raise UserError(f"vgg: depth is {shown(self.depth)}; give 16 or 19")
        check_options("vgg", self, dropout_rate=RATE, width=WIDTH)
        if self.wide and self.width != _WIDTH:
            raise UserError("vgg: wide=True has a width of its own; remove width")
        if self.published and not self.batch_norm:
            raise UserError("vgg: published=True needs batch_norm=True; remove it")
        super().__post_init__()

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each block."""
        width = _WIDE if self.wide else self.width
        return tuple(width * multiple for multiple in _CHANNELS[self.wide])

    @property
    def hidden(self) -> int:
        """Units of both hidden dense layers."""
        return 8 * self.channels[0]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [B, H, W, C] to logits [B, num_classes]."""
        blocks = zip(_CONVOLUTIONS[self.depth], self.channels, strict=True)
        for block, (convolutions, channels) in enumerate(blocks, start=1):
            last = -(-convolutions // 2) if self.published else convolutions
            for i in range(1, last + 1):
                x = conv(channels, 3, name=f"conv{block}_{i}")(x)
                if self.published:
                    x = nn.relu(x)
                if self.batch_norm and not (self.published and 2 * i > convolutions):
                    x = BatchNorm(name=f"bn{block}_{i}")(x, train)
                if i == last and min(x.shape[1:3]) >= 2:
                    x = max_pool_2x2(x)
                x = nn.relu(x)  # after the pool: the same values, a quarter of the pixels

        x = x.reshape(x.shape[0], -1)
        for i in (1, 2):
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
            x = nn.relu(Dense(self.hidden, name=f"fc{i}")(x))
        return Dense(self.num_classes, name="fc3")(x)
