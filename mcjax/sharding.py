"""The one place that makes a device mesh."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mcjax.tree import PyTree


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis "t", over which the points of a path are spread.

    Args:
        devices: The devices; all of them unless given.

    Returns:
        The mesh.

    Example:
        >>> make_mesh(jax.devices()[:1]).shape["t"]
        1
    """
    devices = jax.devices() if devices is None else devices
    # jax.make_mesh makes Explicit axes since JAX 0.9; Auto leaves user networks alone.
    return Mesh(np.asarray(devices), ("t",), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a tree on every device of the mesh, once."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
