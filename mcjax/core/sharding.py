"""The one place that makes a device mesh."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mcjax.core.tree import PyTree


def make_mesh(devices: Sequence[jax.Device] | np.ndarray | None = None, axis: str = "t") -> Mesh:
    """A one-dimensional mesh.

    Args:
        devices: The devices; all of them, of all processes, unless given.
        axis: "t", over which the points of a path are spread, or "batch", over which the images of a
            training step are.

    Returns:
        The mesh.

    Example:
        >>> make_mesh(jax.devices()[:1]).shape["t"]
        1
    """
    devices = jax.devices() if devices is None else devices
    # jax.make_mesh makes Explicit axes since JAX 0.9; Auto leaves user networks alone.
    return Mesh(np.asarray(devices), (axis,), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a tree on every device of the mesh, once.

    Where the mesh spans several processes each gives its own copy, and all must be equal.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    if not mesh.is_multi_process:
        return jax.device_put(tree, everywhere)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == everywhere:
            return leaf
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        # Not device_put, which compares each leaf between the processes by a program of its own.
        array = np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.result_type(leaf)))
        return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

    return jax.tree.map(put, tree)


def keep(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts on the devices what many calls of `replicate` will be given, so that it is sent once.

    Left on the host where the mesh spans several processes: no process can compute with such an
    array by itself.
    """
    return tree if mesh.is_multi_process else replicate(tree, mesh)
