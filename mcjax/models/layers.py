"""Convolution and dense layers with the padding and initialisation of the papers' networks.

They differ from flax's defaults in two ways. Convolutions are padded equally on all sides (SAME pads
a stride-2 convolution on one side only, which would shift the image compared with PyTorch), and
weights are initialised as below instead of from a truncated normal.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

he_normal_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Weights from N(0, 2 / (height * width * features_out)). Source: He et al. 2015, equation 14."""


def torch_uniform(fan_in: int) -> jax.nn.initializers.Initializer:
    """PyTorch's default initialisation of weights and biases: U(-b, b), b = 1 / sqrt(fan_in).

    Args:
        fan_in: Number of inputs per output.

    Returns:
        An initialiser `(key, shape, dtype) -> array`.

    Example:
        >>> weights = torch_uniform(4)(jax.random.key(0), (4, 1000))
        >>> bool(jnp.abs(weights).max() <= 0.5)
        True
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(
    features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    use_bias: bool = True,
    kernel_init: jax.nn.initializers.Initializer = he_normal_fan_out,
    bias_init: jax.nn.initializers.Initializer = nn.initializers.zeros,
    name: str | None = None,
) -> nn.Conv:
    """A square convolution, padded by kernel_size // 2 on all sides.

    Args:
        features: Number of output channels.
        kernel_size: Height and width of the kernel, odd, in pixels.
        stride: Stride, in pixels; stride 1 keeps the image's size.
        use_bias: Whether to add a bias per channel.
        kernel_init: Initialiser of the kernel.
        bias_init: Initialiser of the bias.
        name: The layer's name in the parameter tree.

    Returns:
        A layer that maps images [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features].
    """
    side = kernel_size // 2
    return nn.Conv(
        features,
        kernel_size=(kernel_size, kernel_size),
        strides=(stride, stride),
        padding=((side, side), (side, side)),
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        name=name,
    )


class Dense(nn.Module):
    """A fully connected layer, x @ kernel + bias, initialised like PyTorch's `Linear`.

    Args:
        features: Number of outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps vectors [B, F] to [B, features]."""
        # A separate module because flax's bias initialisers do not receive fan_in.
        init = torch_uniform(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        return x @ kernel + bias[None]
