"""Views and copies of arrays: reshape, permute, slice, concatenate, index, pad."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from mcjax.interop.exported.call import Call
from mcjax.interop.exported.operators.kinds import by_values, plain, with_call
from mcjax.interop.exported.values import TO_FIRST, TO_LAST, Value, common

_STORED = (0, 3, 1, 2)  # where PyTorch's axes of images are stored


def _reshape(call: Call, self: Value, size=None, shape=None) -> Value:
    return _reshaped(self, *call.shape_of(self, size if shape is None else shape))


def _unflatten(call: Call, self: Value, dim, sizes) -> Value:
    dim %= self.ndim
    sizes = (*self.shape[:dim], *sizes, *self.shape[dim + 1 :])
    return _reshaped(self, *call.shape_of(self, sizes))


def _flatten(call: Call, self: Value, start_dim=0, end_dim=-1) -> Value:
    first, last = start_dim % max(self.ndim, 1), end_dim % max(self.ndim, 1)
    shape = self.shape
    sizes = (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
    return _reshaped(self, *call.shape_of(self, sizes))


def _reshaped(x: Value, shape: Sequence[int], inner: int) -> Value:
    if x.channels_last and x.shape[2:] == (1, 1):  # one pixel: no transposition
        return Value(x.array.reshape(tuple(shape)), inner=inner)
    return Value(x.plain().reshape(tuple(shape)), inner=inner)


def _permute(self: Value, dims) -> Value:
    """Images that are stored as asked for are not moved."""
    dims = tuple(d % self.ndim for d in dims)
    if self.channels_last:
        stored = tuple(_STORED[d] for d in dims)
        return Value(self.array.transpose(stored))
    if dims == TO_FIRST:
        return Value(self.array, channels_last=True)
    return Value(self.array.transpose(dims))


def _transpose(self: Value, dim0, dim1) -> Value:
    dims = list(range(self.ndim))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return _permute(self, dims)


def _t(self) -> Array:
    return self.T


def _swap_last(self) -> Array:
    return jnp.swapaxes(self, -1, -2)


def _movedim(self, source, destination) -> Array:
    return jnp.moveaxis(self, source, destination)


def _unsqueeze(self, dim) -> Array:
    return jnp.expand_dims(self, dim)


def _squeeze(self, dim=None) -> Array:
    dims = range(self.ndim) if dim is None else ((dim,) if isinstance(dim, int) else dim)
    return self.squeeze(tuple(d % self.ndim for d in dims if self.shape[d] == 1))


def _expand(call: Call, self: Value, size, implicit=False) -> Array:
    x = self.plain()
    x = x.reshape((1,) * (len(size) - x.ndim) + x.shape)
    size = [n if m == -1 else m for n, m in zip(x.shape, size, strict=True)]
    if x.shape[0] == 1:
        return jnp.broadcast_to(x, call.new_shape(size))
    return jnp.broadcast_to(x, [m if n == 1 else n for n, m in zip(x.shape, size, strict=True)])


def _expand_as(self: Value, other: Value) -> Value:
    (x, like), last = common([self, other])
    return Value(jnp.broadcast_to(x, like.shape), last)


def _repeat(call: Call, self: Value, repeats) -> Array:
    x = self.plain()
    x = x.reshape((1,) * (len(repeats) - x.ndim) + x.shape)
    return jnp.tile(x, call.new_shape(repeats) if x.shape[0] == 1 else repeats)


def _repeat_interleave(self, repeats, dim=None, output_size=None) -> Array:
    return jnp.repeat(self, repeats, dim)


def _concatenated(call: Call, tensors: Sequence[Value], dim=0) -> Value:
    tensors = [t for t in tensors if t.shape != (0,)]
    dim %= tensors[0].ndim
    arrays, last = common(list(tensors))
    axis = _STORED[dim] if last else dim
    return Value(jnp.concatenate(_of_one_batch(call, arrays, axis), axis), last)


def _of_one_batch(call: Call, arrays: list[Array], axis: int) -> list[Array]:
    """Repeats arrays that were made for the example's batch, such as a class token.

    With one image in the example, nothing tells an array for each image from one for all.
    """
    if axis == 0 or call.num_images[0] != 1:
        return arrays
    number = max(x.shape[0] for x in arrays)
    return [jnp.broadcast_to(x, (number, *x.shape[1:])) if len(x) == 1 else x for x in arrays]


def _stack(call: Call, tensors: Sequence[Value], dim=0) -> Array:
    arrays = [t.plain() for t in tensors]
    dim %= arrays[0].ndim + 1
    return jnp.stack(_of_one_batch(call, arrays, dim), dim)


def _slice(self: Value, dim=0, start=None, end=None, step=1) -> Value:
    dim %= self.ndim
    axis = _STORED[dim] if self.channels_last else dim
    chosen = slice(start, None if end is None else min(end, self.shape[dim]), step)
    return Value(self.array[(slice(None),) * axis + (chosen,)], self.channels_last)


def _select(self, dim, index) -> Array:
    return lax.index_in_dim(self, index, dim, keepdims=False)


def _split(self: Value, split_size, dim=0) -> list[Value]:
    n = self.shape[dim]
    return _pieces(self, [min(split_size, n - i) for i in range(0, n, split_size)], dim)


def _split_with_sizes(self: Value, split_sizes, dim=0) -> list[Value]:
    return _pieces(self, split_sizes, dim)


def _chunk(self: Value, chunks, dim=0) -> list[Value]:
    return _split(self, -(-self.shape[dim] // chunks), dim)


def _pieces(x: Value, sizes: Sequence[int], dim: int) -> list[Value]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_slice(x, dim, a, a + n) for a, n in zip(starts, sizes, strict=True)]


def _unbind(self, dim=0) -> list[Array]:
    return [_select(self, dim, i) for i in range(self.shape[dim])]


def _index(self, indices) -> Array:
    if any(i is not None and i.dtype == jnp.bool_ for i in indices):
        raise ValueError("an index of bools gives an array of unknown size; use torch.where")
    return self[tuple(slice(None) if i is None else i for i in indices)]


def _index_select(self, dim, index) -> Array:
    return jnp.take(self, index, dim)


def _gather(self, dim, index, sparse_grad=False) -> Array:
    return jnp.take_along_axis(self, index, dim)


def _roll(self, shifts, dims=()) -> Array:
    shifts, dims = (v if isinstance(v, int) else tuple(v) for v in (shifts, dims))
    return jnp.roll(self, shifts, dims) if dims != () else jnp.roll(self, shifts)


def _flip(self, dims) -> Array:
    return jnp.flip(self, tuple(dims))


_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pad(self: Value, pad, mode="constant", value=None) -> Value:
    """Pads the last axes; the numbers are (left, right, top, bottom, ...); negative ones crop."""
    widths = [(0, 0)] * (self.ndim - len(pad) // 2)
    widths += reversed(list(zip(pad[::2], pad[1::2], strict=True)))
    if self.channels_last:
        widths = [widths[i] for i in TO_LAST]
    x = self.array
    if mode == "constant":
        padded = lax.pad(x, jnp.array(value or 0, x.dtype), [(a, b, 0) for a, b in widths])
    else:
        padded = jnp.pad(x, widths, _MODES[mode])
    return Value(padded, self.channels_last)


def _padded(mode: str) -> Any:
    def pad(self: Value, padding) -> Value:
        return _pad(self, padding, mode)

    return by_values(pad)


def _pixel_shuffle(self, upscale_factor) -> Array:
    *lead, c, h, w = self.shape
    r = upscale_factor
    x = self.reshape(*lead, c // r**2, r, r, h, w)
    n = len(lead)
    x = x.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return x.reshape(*lead, c // r**2, h * r, w * r)


def _pixel_unshuffle(self, downscale_factor) -> Array:
    *lead, c, h, w = self.shape
    r, n = downscale_factor, len(lead)
    x = self.reshape(*lead, c, h // r, r, w // r, r)
    x = x.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return x.reshape(*lead, c * r**2, h // r, w // r)


def _channel_shuffle(self, groups) -> Array:
    n, c, *pixels = self.shape
    return self.reshape(n, groups, c // groups, *pixels).swapaxes(1, 2).reshape(self.shape)


def _tril(self, diagonal=0) -> Array:
    return jnp.tril(self, diagonal)


def _triu(self, diagonal=0) -> Array:
    return jnp.triu(self, diagonal)


def _unfold(self, dimension, size, step) -> Array:
    starts = range(0, self.shape[dimension] - size + 1, step)
    pieces = [lax.slice_in_dim(self, i, i + size, axis=dimension % self.ndim) for i in starts]
    return jnp.moveaxis(jnp.stack(pieces, dimension % self.ndim), dimension % self.ndim + 1, -1)


def _size(self: Value, dim) -> int:
    return self.shape[dim]


def _numel(self: Value) -> int:
    return math.prod(self.shape)


VIEWS = {
    "aten._unsafe_view": with_call(_reshape),
    "aten.alias": None,
    "aten.chunk": by_values(_chunk),
    "aten.contiguous": None,
    "aten.detach": None,
    "aten.expand": with_call(_expand),
    "aten.expand_as": by_values(_expand_as),
    "aten.flatten": with_call(_flatten),
    "aten.movedim": plain(_movedim),
    "aten.numpy_T": plain(_t),
    "aten.mT": plain(_swap_last),
    "aten.permute": by_values(_permute),
    "aten.reshape": with_call(_reshape),
    "aten.select": plain(_select),
    "aten.slice": by_values(_slice),
    "aten.split": by_values(_split),
    "aten.split_with_sizes": by_values(_split_with_sizes),
    "aten.squeeze": plain(_squeeze),
    "aten.swapaxes": by_values(_transpose),
    "aten.t": plain(_t),
    "aten.transpose": by_values(_transpose),
    "aten.unbind": plain(_unbind),
    "aten.unflatten": with_call(_unflatten),
    "aten.unfold": plain(_unfold),
    "aten.unsqueeze": plain(_unsqueeze),
    "aten.view": with_call(_reshape),
}
"""Operators whose results share the memory of their first argument in PyTorch."""
RESHAPES = ("_unsafe_view", "flatten", "reshape", "unflatten", "view")
"""Operators that may move the images into an axis that they share, or out of it."""
OPERATORS = {
    **{name: fn for name, fn in VIEWS.items() if fn is not None},
    "aten.cat": with_call(_concatenated),
    "aten.channel_shuffle": plain(_channel_shuffle),
    "aten.native_channel_shuffle": plain(_channel_shuffle),
    "aten.constant_pad_nd": by_values(lambda self, pad, value=0: _pad(self, pad, value=value)),
    "aten.flip": plain(_flip),
    "aten.gather": plain(_gather),
    "aten.index": plain(_index),
    "aten.index_select": plain(_index_select),
    "aten.pad": by_values(_pad),
    "aten.pixel_shuffle": plain(_pixel_shuffle),
    "aten.pixel_unshuffle": plain(_pixel_unshuffle),
    "aten.reflection_pad2d": _padded("reflect"),
    "aten.repeat": with_call(_repeat),
    "aten.repeat_interleave": plain(_repeat_interleave),
    "aten.replication_pad2d": _padded("replicate"),
    "aten.roll": plain(_roll),
    "aten.stack": with_call(_stack),
    "aten.tril": plain(_tril),
    "aten.triu": plain(_triu),
    "aten.sym_size": by_values(_size),
    "aten.sym_numel": by_values(_numel),
}
