"""Matrix products, einsum, attention and embeddings."""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.operators.kinds import array, plain, with_call
from mcjax.interop.exported.values import Value


def linear(input, weight, bias=None) -> Array:
    """The product x w' + b, with w [out, in]."""
    y = lax.dot_general(input, weight, (((input.ndim - 1,), (1,)), ((), ())))
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def _matmul(self, other=None, mat2=None, vec=None, tensor=None) -> Array:
    return jnp.matmul(self, next(x for x in (other, mat2, vec, tensor) if x is not None))


def _addmm(self, mat1, mat2, beta=1, alpha=1) -> Array:
    product = mat1 @ mat2
    bias = self.reshape((1,) * (product.ndim - self.ndim) + self.shape)
    return (bias if beta == 1 else beta * bias) + (product if alpha == 1 else alpha * product)


def _baddbmm(self, batch1, batch2, beta=1, alpha=1) -> Array:
    return beta * self + alpha * (batch1 @ batch2)


def _einsum(equation, tensors, path=None) -> Array:
    return jnp.einsum(equation, *tensors)


def attention(
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
) -> Array:
    """softmax(q k' / sqrt(d) + mask) v, over the last two axes."""
    q, k, v, mask = (array(a) for a in (query, key, value, attn_mask))
    if enable_gqa:
        k, v = (jnp.repeat(a, q.shape[-3] // a.shape[-3], -3) for a in (k, v))
    scores = jnp.matmul(q, jnp.swapaxes(k, -1, -2))
    scores = scores * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    if mask is not None:
        mask = mask.reshape((1,) * (scores.ndim - mask.ndim) + mask.shape)
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    weights = jax.nn.softmax(scores, -1)
    if call.training and dropout_p:
        kept = jax.random.bernoulli(call.random_key(), 1 - dropout_p, weights.shape)
        weights = jnp.where(kept, weights / (1 - dropout_p), 0)
    return jnp.matmul(weights, v)


def _embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False) -> Array:
    return weight[indices]


def _outer(self, vec2) -> Array:
    return self[:, None] * vec2[None]


OPERATORS = {
    "aten.linear": plain(linear),
    "aten.matmul": plain(_matmul),
    "aten.mm": plain(_matmul),
    "aten.bmm": plain(_matmul),
    "aten.mv": plain(_matmul),
    "aten.dot": plain(_matmul),
    "aten.addmm": plain(_addmm),
    "aten.baddbmm": plain(_baddbmm),
    "aten.einsum": plain(_einsum),
    "aten.embedding": plain(_embedding),
    "aten.outer": plain(_outer),
    "aten.scaled_dot_product_attention": with_call(attention),
}
