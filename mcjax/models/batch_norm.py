"""Batch normalisation with PyTorch's running statistics.

flax's `nn.BatchNorm` averages the biased batch variance; PyTorch, and therefore the published results
for these networks, the unbiased one. They differ for small batches with small feature maps.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Normalises each channel, then scales and shifts it.

        y = scale * (x - mean) / sqrt(var + eps) + bias

    In training mode mean and var are those of the batch (var divides by n, the number of values per
    channel), and the running statistics are updated as

        mean <- momentum * mean + (1 - momentum) * batch_mean
        var  <- momentum * var  + (1 - momentum) * batch_var * n / (n - 1)

    In evaluation mode mean and var are the running statistics. Statistics are computed and stored in
    at least float32, for any dtype of x and of the parameters; y has the dtype of x.

    Args:
        momentum: Weight of the old running statistics; one minus PyTorch's `momentum`.
        eps: Added to the variance.
        axis_name: Mapped axis over which the batch is sharded, if any; statistics are then computed
            over the whole batch.

    Example:
        >>> images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
        >>> norm = BatchNorm()
        >>> variables = norm.init(jax.random.key(1), images)
        >>> y, updates = norm.apply(variables, images, train=True, mutable=["batch_stats"])
        >>> updates["batch_stats"]["var"].shape
        (3,)

    Source: Ioffe and Szegedy 2015.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalises over all axes of x but the last.

        Args:
            x: Activations [B, ..., C].
            train: Use the batch's statistics and update the running statistics.

        Returns:
            Activations with the shape of x.
        """
        dtype, channels = x.dtype, x.shape[-1]
        x = x.astype(jnp.promote_types(dtype, jnp.float32))
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))

        def per_channel(v):
            return v.reshape((1,) * (x.ndim - 1) + (channels,))

        if train:
            mean = self._batch_mean(x)
            var = self._batch_mean((x - per_channel(mean)) ** 2)
            if not self.is_initializing():
                n = self._batch_count(x)
                # Affine in the old statistics with slope `momentum`, which mcjax.batch_stats relies
                # on: it obtains the momentum by a jvp.
                keep, add = self.momentum, 1 - self.momentum
                running_mean.value = keep * running_mean.value + add * mean
                running_var.value = keep * running_var.value + add * (n / max(n - 1, 1)) * var
        else:
            mean, var = running_mean.value, running_var.value

        factor = scale * jax.lax.rsqrt(var + self.eps)
        y = (x - per_channel(mean)) * per_channel(factor) + per_channel(bias)
        return y.astype(dtype)

    def _batch_mean(self, x: jax.Array) -> jax.Array:
        mean = x.mean(axis=tuple(range(x.ndim - 1)))
        return mean if self.axis_name is None else jax.lax.pmean(mean, self.axis_name)

    def _batch_count(self, x: jax.Array) -> int:
        count = math.prod(x.shape[:-1])
        return count if self.axis_name is None else count * jax.lax.axis_size(self.axis_name)
