"""Every way that the CPU lowering chooses between, on every distinct convolution.

    python -m benchmarks.ways [--networks vgg16] [--batches 128 512 1024] [--passes forward dw] [--write]

`mcjax.cpu_convolution.choice` picks a way by shape; its thresholds come from this table. A
convolution's d/dx is a forward convolution with in and out exchanged, so it is timed as
one. Ways run inside a loop, where training runs them, and XLA's own weight gradient, which can
take seconds there, only with --xla-dw. Results are checked against the first way's. Finished
pieces are kept in benchmarks/ways.json, and benchmarks/ways.md is made from it. --write makes mcjax
take the fastest ways of the first of the batches, on this machine and from now on.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from functools import partial
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
from mcjax.cpu_convolution import build, choice, fused, measured, winograd

FILE = Path(__file__).parent / "ways.json"
PASSES = ("forward", "dx", "dw")
DENSE_LIMIT = 2**26  # numbers of the dense form's matrix: 256 MiB
TEXT = """\
Written by `python -m benchmarks.ways`; see that file for how it measures. Median milliseconds of one convolution in a
loop, by the way it is computed; *chosen* is what `mcjax.cpu_convolution.choice` picks, bold where another was faster
by more than 10 %. d/dx at stride 2 is missing: it is a sum of smaller forward convolutions."""
WAYS = (
    "direct", "fused", "xla", "product", "blocked", "crossed", "wide", "winograd", "dense", "winograd2", "winograd4",
)  # fmt: skip


def main() -> None:
    """Runs what is asked for and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", choices=inputs.NETWORKS, default=[*inputs.NETWORKS]
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[inputs.BATCH_SIZE])
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=[*PASSES])
    parser.add_argument("--pixels", type=int, default=32**2, help="only images of at most so many")
    parser.add_argument("--xla-dw", action="store_true", help="time XLA's own weight gradient too")
    parser.add_argument("--steps", type=int, default=3, help="convolutions a timing")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--missing", action="store_true", help="skip what is in the file already")
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--write", action="store_true", help="mcjax takes the fastest ways here")
    options = parser.parse_args()
    if options.write and not build.load():
        parser.error("--write is for machines with a C compiler; see the warning")
    cpu_convolution.disable()  # or XLA's own would be replaced where it stands
    pieces = Pieces(options.output)
    work = [
        (layer, kind, batch)
        for batch in options.batches
        for layer in distinct(options.networks)
        for kind in options.passes
        if layer.image[0] * layer.image[1] <= options.pixels
        and not (kind == "dx" and layer.stride != (1, 1))
    ]
    for i, (layer, kind, batch) in enumerate(work, start=1):
        name = f"{layer} | {kind} | {batch}"
        if options.missing and name in pieces.rows:
            continue
        began = time.monotonic()
        row = measure(
            layer,
            kind,
            batch,
            steps=options.steps,
            repeats=options.repeats,
            xla_dw=options.xla_dw,
        )
        pieces.keep(name, row)
        times = ", ".join(f"{way} {1e3 * s:.2f}" for way, s in row["seconds"].items())
        took = time.monotonic() - began
        print(f"{i}/{len(work)} {name}: {times} ms ({took:.0f} s)", file=sys.stderr)
    pieces.write("The ways of a convolution on CPU", TEXT, table)
    if options.write:
        layers = {f"{layer} | {kind}": measured_key(layer, kind) for layer, kind, _ in work}
        rows = [row for row in pieces.rows.values() if row["batch"] == options.batches[0]]
        fastest = {
            layers[name]: min(row["seconds"], key=row["seconds"].get)
            for row in rows
            if (name := f"{row['layer']} | {row['pass']}") in layers
        }
        print(f"{len(fastest)} ways in {measured.write(fastest)}", file=sys.stderr)


def measured_key(layer: Layer, kind: str) -> str:
    """The layer's entry in mcjax's table of measured ways."""
    (kh, kw, i, o), stride = layer.weights, layer.stride
    if kind == "dx":
        return measured.key("forward", layer.image[:2], (kh, kw, o, i), stride)
    return measured.key(kind, layer.output(1)[1:3], layer.weights, stride)


def measure(
    layer: Layer, kind: str, batch: int, *, steps: int, repeats: int, xla_dw: bool = False
) -> Row:
    """Seconds of every way that fits one convolution.

    Args:
        layer: The convolution.
        kind: "forward", "dx" or "dw".
        batch: Images.
        steps: Convolutions a timing.
        repeats: Timings, of which the median counts.
        xla_dw: Time XLA's own weight gradient.

    Returns:
        {"seconds": {way: seconds}, "chosen": the way that is chosen, ...}.

    Raises:
        SystemExit: Two ways do not give the same.
    """
    ways, shapes, chosen = candidates(layer, kind, batch, xla_dw=xla_dw)
    first, second = shapes
    varied = jax.random.normal(jax.random.key(0), (2, *first))
    fixed = jax.random.normal(jax.random.key(1), second)
    calls: list[Callable[[], Array]] = []
    expected = None
    for way, fn in ways.items():
        zero = jnp.zeros_like(jax.eval_shape(fn, varied[0], fixed))

        def loop(total: Array, varied: Array, fixed: Array, steps: Array, fn: Any = fn) -> Array:
            def body(k: Array, total: Array) -> Array:
                # Operands that change from step to step: nothing can be moved out of the loop.
                return total + fn(lax.dynamic_index_in_dim(varied, k % 2, keepdims=False), fixed)

            return lax.fori_loop(0, steps, body, total)

        program = jax.jit(loop)
        args = (zero, varied, fixed, jnp.int32(steps))
        result = np.asarray(program(*args))
        expected = result if expected is None else expected
        if np.abs(result - expected).max() > 1e-4 * np.abs(expected).max():
            sys.exit(f"{layer} {kind} {batch}: {way} differs from the others; nothing timed")
        calls.append(partial(program, *args))
    times = dict(zip(ways, seconds(calls, repeats), strict=True))
    return {
        "layer": str(layer),
        "pass": kind,
        "batch": batch,
        "chosen": chosen,
        "seconds": {way: s / steps for way, s in times.items()},
        "operations": layer.operations(batch),
    }


def candidates(
    layer: Layer, kind: str, batch: int, *, xla_dw: bool = False
) -> tuple[dict[str, Callable[[Array, Array], Array]], tuple[Any, Any], str]:
    """The ways that fit a convolution, the shapes of their operands, and the way that is chosen.

    Args:
        layer: The convolution.
        kind: "forward", "dx" or "dw".
        batch: Images.
        xla_dw: XLA's own weight gradient among them.

    Returns:
        {way: function of two operands}, their shapes, and the chosen way.
    """
    (kh, kw, i, o), stride, padding = layer.weights, layer.stride, layer.padding
    x: tuple[int, ...] = (batch, *layer.image)
    g, w = layer.output(batch), layer.weights
    square = kh == kw and stride == (1, 1)
    ways: dict[str, Callable[[Array, Array], Array]]
    if kind == "dw":
        fn: Any = partial(choice.weight_gradient, taps=(kh, kw), stride=stride, padding=padding)
        names = ["direct"] if build.load() else []
        names += ["fused"] if fused.fits((kh, kw), (i, w[3]), stride=stride) else []
        names += ["blocked"]
        names += ["crossed"] if stride == (1, 1) and kh > 1 else []
        names += ["wide"] if stride == (1, 1) and i <= 4 and kh > 1 else []
        names += [
            f"winograd{m}" for m, r in winograd.FORMS if square and r == kh and min(g[1:3]) > 1
        ]
        ways = {name: partial(fn, way=name) for name in names}
        if xla_dw:
            like = jax.ShapeDtypeStruct(w, jnp.float32)
            ways["xla"] = lambda x, g: jax.linear_transpose(lambda w: layer(x, w), like)(g)[0]
        chosen = choice.weight_gradient_way(
            x, g, taps=(kh, kw), stride=stride, compiled=build.load()
        )
        return ways, (x, g), chosen
    if kind == "dx":  # the forward convolution that the lowering makes of it
        (a, b), (c, d) = padding
        padding = ((kh - 1 - a, kh - 1 - b), (kw - 1 - c, kw - 1 - d))
        x, g, w, i = g, x, (kh, kw, o, i), o
    size = g[1:3]
    names = ["direct"] if build.load() else []
    names += ["fused"] if fused.fits((kh, kw), (i, w[3]), stride=stride) else []
    names += ["xla", "product" if kh == kw == 1 else "blocked"]
    names += ["wide"] if stride == (1, 1) and i <= 64 and kh > 1 else []
    names += ["winograd"] if square and (2, kh) in winograd.FORMS and min(size) > 1 else []
    matrix = math.prod(x[1:]) * math.prod(g[1:])
    names += ["dense"] if matrix <= DENSE_LIMIT and math.prod(size) <= 16 else []
    fn = partial(choice.forward, stride=stride, padding=padding)
    ways = {name: partial(fn, way=name) for name in names}
    chosen = choice.forward_way(x, w, stride=stride, size=size, compiled=build.load())
    return ways, (x, w), chosen


def table(rows: list[Row]) -> list[str]:
    """The table of a machine, and where another way than the chosen was faster."""
    cells: list[list[Any]] = [["layer", "pass", "images", *WAYS, "chosen", "fastest"]]
    for row in rows:
        times = row["seconds"]
        fastest = min(times, key=times.get)
        chosen = row["chosen"]
        if chosen in times and times[chosen] > 1.1 * times[fastest]:
            chosen = f"**{chosen}**"
        cells.append(
            [row["layer"], row["pass"], row["batch"]]
            + [f"{1e3 * times[way]:.2f}" if way in times else "-" for way in WAYS]
            + [chosen, fastest]
        )
    return rows_of(cells)


if __name__ == "__main__":
    main()
