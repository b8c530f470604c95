"""Batch normalisation with PyTorch's running statistics.

flax's `nn.BatchNorm` averages the biased batch variance; PyTorch, and therefore the published results
for these networks, the unbiased one. They differ for small batches with small feature maps.
"""

import math
from functools import partial

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
            axes = tuple(range(x.ndim - 1))
            mean = batch_mean(x, axes, self.axis_name)
            var = batch_variance(x, per_channel(mean), axes, self.axis_name)
            if not self.is_initializing():
                n = self._batch_count(x)
                # Affine in the old statistics with slope `momentum`, which mcjax.curves.batch_stats relies
                # on: it obtains the momentum by a jvp.
                keep, add = self.momentum, 1 - self.momentum
                running_mean.value = keep * running_mean.value + add * mean
                running_var.value = keep * running_var.value + add * (n / max(n - 1, 1)) * var
        else:
            mean, var = running_mean.value, running_var.value

        factor = scale * jax.lax.rsqrt(var + self.eps)
        scale_fn = scaled if train else scaled.fun  # statistics that are constants have no gradient
        y = scale_fn(x, per_channel(mean), per_channel(factor), per_channel(bias))
        return y.astype(dtype)

    def _batch_count(self, x: jax.Array) -> int:
        count = math.prod(x.shape[:-1])
        return count if self.axis_name is None else count * jax.lax.axis_size(self.axis_name)


Axes = tuple[int, ...]


def batch_mean(x: jax.Array, axes: Axes, axis_name: str | None = None) -> jax.Array:
    """The mean of each channel.

    Args:
        x: Activations.
        axes: All axes but the channels'.
        axis_name: Mapped axis over which the batch is sharded, if any.

    Returns:
        [C].
    """
    mean = x.mean(axes)
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def batch_variance(
    x: jax.Array, mean: jax.Array, axes: Axes, axis_name: str | None = None
) -> jax.Array:
    """The variance of each channel (biased), with one sum less in its gradient.

        v = mean((x - m)^2),    dv = 2 mean((x - m) dx)

    It does not change with m to first order, because deviations from the mean sum to zero; JAX would add
    up these zeros.

    Args:
        x: Activations.
        mean: `batch_mean` of x, with axes of length 1.
        axes: See `batch_mean`.
        axis_name: See `batch_mean`.

    Returns:
        [C].

    Example:
        >>> x = jnp.array([[1.0], [3.0]])
        >>> batch_variance(x, jnp.array([[2.0]]), (0,)).tolist()
        [1.0]
    """
    return batch_mean((x - mean) ** 2, axes, axis_name)


@batch_variance.defjvp
def _(axes, axis_name, primals, tangents):
    (x, mean), (dx, _) = primals, tangents
    changed = 2 * batch_mean((x - mean) * dx, axes, axis_name)
    return batch_variance(x, mean, axes, axis_name), changed


@jax.custom_jvp
def scaled(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    """Scales deviations, with a gradient that adds up the output's gradient once.

        y = (x - mean) * factor + bias

    The gradient of the mean is that of the bias times -factor; JAX would compute it by a sum of its own.

    Args:
        x: Activations.
        mean: Per channel, with axes of length 1, as factor and bias.
        factor: Per channel.
        bias: Per channel.

    Returns:
        y, of x's shape.

    Example:
        >>> one = jnp.ones((1, 1))
        >>> scaled(jnp.array([[3.0]]), one, 2 * one, one).tolist()
        [[5.0]]
    """
    return (x - mean) * factor + bias


@scaled.defjvp
def _(primals, tangents):
    (x, mean, factor, _), (dx, dmean, dfactor, dbias) = primals, tangents
    return scaled(*primals), dx * factor + (x - mean) * dfactor + (dbias - factor * dmean)
