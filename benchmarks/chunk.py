"""How many points of a path to vmap together on one device: time and memory of 1, 2, 4 and 8.

    python -m benchmarks.chunk [--networks vgg16] [--chunks 1 2 4 8] [--batch 1000] [--bfloat16]

A path of as many points as the largest chunk, over 1,000 images, on the first device, of
whatever kind it is; BatchNorm is recomputed at each point where the network has it. Metrics are
checked equal between chunks. Memory is the compiled program's own account of it. Finished
pieces are kept in benchmarks/chunk.json, and benchmarks/chunk.md is made from it.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import inputs
from benchmarks.pieces import Pieces, Row, rows_of, seconds
from mcjax import cpu_convolution
from mcjax.core.sharding import make_mesh, replicate
from mcjax.curves import Bezier
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data.batches import stack_batches
from mcjax.evaluation.path import _evaluate, default_chunk
from mcjax.models.network import Network, in_bfloat16
from mcjax.training.losses import classification_metrics

FILE = Path(__file__).parent / "chunk.json"
TEXT = """\
Written by `python -m benchmarks.chunk`; see that file for how it measures. A point of a path over 1,000 images on one
device, *chunk* points vmapped together. Temporary memory is that of the compiled program, without its arguments
(images, the curve) and results; bold: the fastest chunk of a network."""


def main() -> None:
    """Runs what is asked for and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", choices=inputs.NETWORKS, default=[*inputs.NETWORKS]
    )
    parser.add_argument("--chunks", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--images", type=int, default=inputs.NUM_IMAGES)
    parser.add_argument("--batch", type=int, default=125, help="images per batch; 1000 on GPU, TPU")
    parser.add_argument("--points", type=int, help="of the path; the largest chunk unless given")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    cpu_convolution.enable()
    pieces = Pieces(options.output)
    points = options.points or max(options.chunks)
    for name in options.networks:
        expected = None
        for chunk in options.chunks:
            net = inputs.network(name)
            net = in_bfloat16(net) if options.bfloat16 else net
            row, losses = measure(
                net,
                chunk,
                points,
                num_images=options.images,
                batch_size=options.batch,
                repeats=options.repeats,
            )
            expected = losses if expected is None else expected
            if not np.allclose(losses, expected, rtol=0.05 if options.bfloat16 else 1e-3):
                sys.exit(f"{name}: chunk {chunk} gives other losses; not kept")
            dtype = "bfloat16" if options.bfloat16 else "float32"
            device = jax.devices()[0].device_kind
            key = f"{device} | {name} | {dtype} | {options.images} | {options.batch} | {chunk}"
            pieces.keep(key, {"network": name, "dtype": dtype, **row})
            print(
                f"{key}: {row['seconds']:.3f} s a point, {row['temporary_bytes'] / 2**20:.0f} MiB",
                file=sys.stderr,
            )
    pieces.write("Points vmapped together", TEXT, table)


def measure(
    net: Network,
    chunk: int,
    points: int,
    *,
    num_images: int,
    batch_size: int,
    repeats: int,
    image_shape: tuple[int, int, int] = inputs.IMAGE_SHAPE,
) -> tuple[Row, np.ndarray]:
    """Seconds of a point and memory of the program, with so many points vmapped together.

    Args:
        net: The network.
        chunk: Points vmapped together.
        points: Of the path; rounded up to whole chunks.
        num_images: Images that each point is evaluated on.
        batch_size: Images per batch.
        repeats: Timings, of which the median counts.
        image_shape: Height, width, channels.

    Returns:
        The row, and the loss at every point.
    """
    points = -(-points // chunk) * chunk
    run, memory = program(
        net, chunk, points, num_images=num_images, batch_size=batch_size, image_shape=image_shape
    )
    losses = np.asarray(run()["loss"])
    (whole,) = seconds([run], repeats)
    return {
        "chunk": chunk,
        "points": points,
        "images": num_images,
        "batch": batch_size,
        "seconds": whole / points,
        "images_per_second": points * num_images / whole,
        "default": default_chunk(),
        **memory,
    }, losses


def program(
    net: Network,
    chunk: int,
    points: int,
    *,
    num_images: int,
    batch_size: int,
    image_shape: tuple[int, int, int],
) -> tuple[Callable[[], dict[str, jax.Array]], dict[str, int]]:
    """The compiled path, as a function without arguments, and the bytes that it needs.

    Args:
        net: The network.
        chunk: Points vmapped together.
        points: Of the path: whole chunks.
        num_images: Images that each point is evaluated on.
        batch_size: Images per batch.
        image_shape: Height, width, channels.

    Returns:
        The function, and {"temporary_bytes", "argument_bytes", "output_bytes"}.
    """
    mesh = make_mesh(jax.devices()[:1])
    image = jax.random.uniform(jax.random.key(9), (num_images, *image_shape))
    label = np.arange(num_images, dtype=np.int32) % 10
    sets = {"": stack_batches({"image": np.asarray(image), "label": label}, batch_size)}
    start, bend, end = (net.init(jax.random.key(seed)) for seed in range(3))
    curve = CurveWithStats(
        Bezier(start["params"], (bend["params"],), end["params"]),
        start.get("batch_stats", {}),
        end.get("batch_stats", {}),
        image if net.has_batch_stats else None,
        net.apply_train,
        batch_size,
    )
    ts = jnp.linspace(0, 1, points, dtype=jnp.float32)
    args = replicate((curve, ts, sets), mesh)
    metric_fn = classification_metrics(net.apply)
    compiled = _evaluate.lower(
        *args, metric_fns=tuple((name, metric_fn) for name in sets), mesh=mesh, chunk=chunk
    ).compile()
    memory: Any = compiled.memory_analysis()
    return lambda: compiled(*args)[""], {
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
    }


def table(rows: list[Row]) -> list[str]:
    """The table of a machine."""
    head = "network, type, batch, chunk, seconds a point, images/s, temporary MiB, default"
    cells: list[list[Any]] = [head.split(", ")]
    best: dict[tuple[Any, ...], float] = {}
    for row in rows:
        key = (row["network"], row["dtype"], row["images"], row["batch"])
        best[key] = min(best.get(key, float("inf")), row["seconds"])
    for row in rows:
        key = (row["network"], row["dtype"], row["images"], row["batch"])
        mark = "**" if row["seconds"] == best[key] else ""
        cells.append(
            [
                row["network"],
                row["dtype"],
                row["batch"],
                row["chunk"],
                f"{mark}{row['seconds']:.4f}{mark}",
                f"{row['images_per_second']:.0f}",
                f"{row['temporary_bytes'] / 2**20:.0f}",
                "default" if row["chunk"] == row["default"] else "",
            ]
        )
    return rows_of(cells)


if __name__ == "__main__":
    main()
