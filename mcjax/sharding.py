"""Device meshes and replication."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mcjax.tree import PyTree


def make_mesh(devices: Sequence[jax.Device] | np.ndarray | None = None, axis: str = "t") -> Mesh:
    """Makes a one-dimensional mesh.

    Args:
        devices: The devices. Default: all devices of all processes.
        axis: "t" for the points of a path, or "batch" for the images of a training step.

    Returns:
        The mesh.

    Example:
        >>> make_mesh(jax.devices()[:1]).shape["t"]
        1
    """
    devices = jax.devices() if devices is None else devices
    # jax.make_mesh makes Explicit axes since JAX 0.9; user networks need Auto.
    return Mesh(np.asarray(devices), (axis,), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Replicates a tree on every device of the mesh.

    If the mesh spans several processes, each passes its own copy; all copies must be equal.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    if not mesh.is_multi_process:
        return jax.device_put(tree, everywhere)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == everywhere:
            return leaf
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        # device_put would run one program per leaf to compare it between the processes.
        array = np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.result_type(leaf)))
        return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

    return jax.tree.map(put, tree)


def keep(tree: PyTree, mesh: Mesh) -> PyTree:
    """Replicates a tree that will be passed to `replicate` many times, so that it is sent once.

    With several processes the tree stays on the host, because a single process cannot compute with
    an array that spans processes.
    """
    return tree if mesh.is_multi_process else replicate(tree, mesh)
