"""What the card can do at best, in JAX: large matrix products and a large copy."""

import contextlib
import time
from collections.abc import Iterator, Set
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator.record import Row

PRECISIONS = {
    "float32": (jnp.float32, "float32"),
    "tf32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, None),
}


def rows(_: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """Operations a second of a matrix product, bytes a second of a copy; the best of several calls.

    Args:
        _: Not used.
        done: Names of rows to leave out.
        tiny: Small sizes.

    Yields:
        "operations_per_second" or "bytes_per_second", and the size.
    """
    n, repeats = (256, 3) if tiny else (8192, 20)
    for precision, (dtype, setting) in PRECISIONS.items():
        name = f"product {precision}"
        if name in done:
            continue
        # Random numbers: zeros draw less power and run faster than anything real.
        a, b = (jax.random.normal(jax.random.key(i), (n, n)).astype(dtype) for i in (0, 1))
        with jax.default_matmul_precision(setting) if setting else contextlib.nullcontext():
            seconds = best(jax.jit(jnp.matmul), a, b, repeats=repeats)
        yield {"name": name, "n": n, "operations_per_second": 2 * n**3 / seconds}
    if "copy" not in done:
        number = 2**16 if tiny else 2**30
        x = jax.random.bits(jax.random.key(2), (number,), jnp.uint32)
        seconds = best(jax.jit(lambda x: x ^ jnp.uint32(1)), x, repeats=repeats)
        yield {"name": "copy", "bytes": 8 * number, "bytes_per_second": 8 * number / seconds}


def best(fn: Any, *args: jax.Array, repeats: int) -> float:
    """Seconds of the fastest call; the first, which compiles, does not count."""
    jax.block_until_ready(fn(*args))
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(fn(*args))
        found.append(time.perf_counter() - began)
    return min(found)
