"""A coarse grid, enlarged to an image: what smooth forms are made of."""

import jax


def enlarge(grid: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A coarse grid [g, h, C], interpolated to [H, W, C] by cubic splines."""
    return jax.image.resize(grid, (*shape, grid.shape[-1]), "cubic")
