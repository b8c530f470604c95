"""Every form of a convolution that the CPU lowering recognises, outside and inside a loop.

    python -m benchmarks.loop_forms [--networks convfc] [--forms dw dw_both] [--stock]

The same body, total + convolution of one of two operands, is timed as a program that Python calls
again and again, and as the body of a `fori_loop`. Results are checked equal first. With --stock
XLA's own convolutions are timed too: a call of theirs in a loop can take seconds. Finished
pieces are kept in benchmarks/loop_forms.json, and benchmarks/loop_forms.md is made from it.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks import inputs
from benchmarks.layers import Layer, distinct
from benchmarks.pieces import Pieces, Row, rows_of, seconds
from mcjax import cpu_convolution

FILE = Path(__file__).parent / "loop_forms.json"
PASSES = ("forward", "dx", "dw")
# Points vmapped together: over weights with the same images, or over weights and images.
VMAPS = {"": (None, None), "_weights": (None, 0), "_both": (0, 0)}
FORMS = tuple(f"{p}{v}" for v in VMAPS for p in PASSES)
SLOWER = 1.1
TEXT = """\
Written by `python -m benchmarks.loop_forms`; see that file for how it measures. Median milliseconds of one
convolution and the addition of its output to a total, outside and inside a loop; *weights*: vmapped over
weights with the same images, *both*: over weights and images. *ratio*: inside over outside; more than 1.1 is bold."""


def main() -> None:
    """Runs what is asked for and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", choices=inputs.NETWORKS, default=[*inputs.NETWORKS]
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=[*FORMS])
    parser.add_argument("--stock", action="store_true", help="time XLA's own convolutions too")
    parser.add_argument("--batch", type=int, default=inputs.BATCH_SIZE)
    parser.add_argument("--points", type=int, default=4, help="vmapped together")
    parser.add_argument("--point-batch", type=int, default=32, help="images of each vmapped point")
    parser.add_argument("--steps", type=int, default=3, help="convolutions a timing")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--missing", action="store_true", help="skip what is in the file already")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    pieces = Pieces(options.output)
    work = [
        (layer, networks, form, lowering)
        for layer, networks in distinct(options.networks).items()
        for form in options.forms
        for lowering in (("mcjax", "stock") if options.stock else ("mcjax",))
    ]
    for i, (layer, networks, form, lowering) in enumerate(work, start=1):
        points = 1 if form in PASSES else options.points
        batch = options.batch if form in PASSES else options.point_batch
        name = f"{layer} | {form} | {points} x {batch} | {lowering}"
        if options.missing and name in pieces.rows:
            continue
        began = time.monotonic()
        row = measure(
            layer, form, lowering, points, batch, steps=options.steps, repeats=options.repeats
        )
        pieces.keep(name, {**row, "networks": networks})
        took = time.monotonic() - began
        print(
            f"{i}/{len(work)} {name}: {1e3 * row['outside']:.2f} ms outside, "
            f"{1e3 * row['inside']:.2f} inside ({took:.0f} s)",
            file=sys.stderr,
        )
    pieces.write("Convolutions outside and inside a loop", TEXT, table)


def measure(
    layer: Layer, form: str, lowering: str, points: int, batch: int, *, steps: int, repeats: int
) -> Row:
    """Seconds of one form of one layer, outside and inside a loop.

    Args:
        layer: The convolution.
        form: One of `FORMS`.
        lowering: "mcjax" or "stock".
        points: Vmapped together, where the form is vmapped.
        batch: Images of a point.
        steps: Convolutions a timing.
        repeats: Timings, of which the median counts.

    Returns:
        Seconds "outside" and "inside", operations of the direct method, and what was measured.

    Raises:
        SystemExit: Inside and outside do not give the same.
    """
    outside, inside = programs(layer, form, lowering, points, batch, steps=steps)
    a, b = np.asarray(outside()), np.asarray(inside())
    if not equal(a, b):
        sys.exit(f"{layer} {form} {lowering}: inside a loop the result differs; nothing timed")
    out, ins = (s / steps for s in seconds([outside, inside], repeats))
    return {
        "layer": str(layer),
        "form": form,
        "lowering": lowering,
        "points": points,
        "batch": batch,
        "outside": out,
        "inside": ins,
        "operations": layer.operations(batch) * points,
    }


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two results are equal to the rounding of float32."""
    return a.shape == b.shape and bool(np.abs(a - b).max() <= 2e-5 * np.abs(a).max())


def programs(
    layer: Layer, form: str, lowering: str, points: int, batch: int, *, steps: int
) -> tuple[Callable[[], Array], Callable[[], Array]]:
    """Two functions that do the same: steps calls of a program, and one call with a loop.

    Args:
        layer: The convolution.
        form: One of `FORMS`.
        lowering: "mcjax" or "stock".
        points: Vmapped together, where the form is vmapped.
        batch: Images of a point.
        steps: Convolutions.

    Returns:
        The two, compiled; each gives the sum of the convolutions.
    """
    fn, varied, fixed = operands(layer, form, points, batch)
    zero = jnp.zeros_like(jax.eval_shape(fn, varied[0], fixed))

    def body(k: Array, total: Array, varied: Array, fixed: Array) -> Array:
        # Operands that change from step to step: nothing can be moved out of the loop.
        return total + fn(lax.dynamic_index_in_dim(varied, k % 2, keepdims=False), fixed)

    def loop(steps: Array, total: Array, varied: Array, fixed: Array) -> Array:
        return lax.fori_loop(0, steps, lambda k, s: body(k, s, varied, fixed), total)

    with lowered(lowering):
        args = jnp.int32(steps), zero, varied, fixed
        one = jax.jit(body, donate_argnums=1).lower(*args).compile()
        many = jax.jit(loop, donate_argnums=1).lower(*args).compile()
    counts = [jnp.int32(k) for k in range(steps)]

    def outside() -> Array:
        total = jnp.copy(zero)
        for k in counts:
            total = one(k, total, varied, fixed)
        return total

    def inside() -> Array:
        return many(jnp.int32(steps), jnp.copy(zero), varied, fixed)

    return outside, inside


def operands(
    layer: Layer, form: str, points: int, batch: int
) -> tuple[Callable[[Array, Array], Array], Array, Array]:
    """The function of a form, two first operands stacked, and the second operand."""
    kind = form.split("_")[0]
    images_axis, weights_axis = VMAPS[form.removeprefix(kind)]
    shapes = {
        "x": (batch, *layer.image),
        "w": layer.weights,
        "g": layer.output(batch),
    }
    x, w = (jax.ShapeDtypeStruct(shapes[n], jnp.float32) for n in "xw")
    # The output's gradient has a point's axis as soon as the weights or the images have one.
    axes = {"x": images_axis, "w": weights_axis, "g": weights_axis}
    fns: dict[str, tuple[str, str, Callable[..., Array]]] = {
        "forward": ("x", "w", layer),
        "dx": ("g", "w", lambda g, w: jax.linear_transpose(lambda x: layer(x, w), x)(g)[0]),
        "dw": ("g", "x", lambda g, x: jax.linear_transpose(lambda w: layer(x, w), w)(g)[0]),
    }
    first, second, fn = fns[kind]
    if weights_axis is not None:
        fn = jax.vmap(fn, (axes[first], axes[second]))

    def draw(seed: int, name: str, number: int | None = None) -> Array:
        stacked = () if number is None else (number,)
        points_axis = () if axes[name] is None else (points,)
        return jax.random.normal(jax.random.key(seed), (*stacked, *points_axis, *shapes[name]))

    return fn, draw(0, first, 2), draw(1, second)


def lowered(lowering: str) -> contextlib.AbstractContextManager[Any]:
    """The context in which programs are compiled with mcjax's or with XLA's own convolutions."""
    if lowering == "stock":
        return cpu_convolution.disabled()
    cpu_convolution.enable()
    return contextlib.nullcontext()


def table(rows: list[Row]) -> list[str]:
    """The table of a machine, and which forms are slower inside a loop."""
    both: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        key = (row["layer"], row["form"], row["points"], row["batch"])
        both.setdefault(key, {})[row["lowering"]] = row
    head = "layer, form, points x images, outside, inside, ratio, GF/s inside"
    cells: list[list[Any]] = [f"{head}, XLA's outside, inside, ratio".split(", ")]
    for (layer, form, points, batch), ways in both.items():
        line = [layer, form, f"{points} x {batch}"]
        for lowering in ("mcjax", "stock"):
            r = ways.get(lowering)
            times = ["-"] * 3
            if r:
                ratio = f"{r['inside'] / r['outside']:.2f}"
                times = [f"{1e3 * r['outside']:.2f}", f"{1e3 * r['inside']:.2f}", ratio]
                if slower(r):
                    times[2] = f"**{ratio}**"
            if lowering == "mcjax":
                times.append(f"{r['operations'] / r['inside'] / 1e9:.0f}" if r else "-")
            line += times
        cells.append(line)
    ours = [r for r in rows if r["lowering"] == "mcjax"]
    bad = [f"{r['layer']} {r['form']}" for r in ours if slower(r)]
    found = "; ".join(bad) or "none"
    said = f"Slower inside a loop by more than 10 %, of {len(ours)} with the lowering: {found}."
    return [*rows_of(cells), "", said]


def slower(row: Row) -> bool:
    """Whether a form is slower inside a loop by more than 10 %."""
    return bool(row["inside"] > SLOWER * row["outside"])


if __name__ == "__main__":
    main()
