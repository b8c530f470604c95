"""How the cost of a path grows with its points, and the work of each device with the devices.

    python -m benchmarks.growth

Two cores can't show the time of eight devices, so each device's work is read from the compiled
program's own cost analysis. Adds its part to benchmarks/results.json and writes results.md anew.
"""

import json
import time
from typing import Any

import jax
import numpy as np

from benchmarks import report
from benchmarks.side_by_side import FILE
from mcjax import models
from mcjax.core.sharding import make_mesh
from mcjax.core.tree import PyTree
from mcjax.curves import Bezier
from mcjax.data.batches import Batch
from mcjax.evaluation.path import _evaluate, evaluate_path
from mcjax.models.network import from_linen
from mcjax.training.losses import classification_metrics

NUM_POINTS = (1, 10, 100, 1000)
NUM_DEVICES = (1, 2, 4, 8)


def main() -> None:
    """Measures both and keeps them."""
    jax.config.update("jax_num_cpu_devices", max(NUM_DEVICES))
    network = from_linen(models.create("cnn", num_classes=10, width=16), (8, 8, 1))
    start, end = ({"params": network.init(jax.random.key(seed))["params"]} for seed in (0, 1))
    curve = Bezier.connect(start, end)
    image = jax.random.uniform(jax.random.key(2), (1, 200, 8, 8, 1))
    batch: dict[str, Any] = {
        "image": image,
        "label": np.zeros((1, 200), np.int32),
        "mask": np.ones((1, 200), np.float32),
    }
    data = json.loads(FILE.read_text()) if FILE.exists() else {"rows": {}}
    data["growth"] = {
        "command": "`python -m benchmarks.growth`: a 3-convolution network on 200 images of 8x8; "
        "each number of points is traced and compiled once, and the repeated call is timed.",
        "points": [points(network.apply, curve, batch, n) for n in NUM_POINTS],
        "devices": [devices(network.apply, curve, batch, n) for n in NUM_DEVICES],
    }
    FILE.write_text(json.dumps(data, indent=1) + "\n")
    report.write(FILE)


def points(apply_fn: Any, curve: Bezier, batch: Batch, num_points: int) -> dict[str, float]:
    """Seconds and traces of a path of so many points on one device."""
    traces = 0
    metrics = classification_metrics(apply_fn)

    def metric_fn(variables: PyTree, batch: Batch) -> dict[str, jax.Array]:
        nonlocal traces
        traces += 1
        return metrics(variables, batch)

    mesh = make_mesh(jax.devices()[:1])
    ts = np.linspace(0, 1, num_points)
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        jax.block_until_ready(evaluate_path(metric_fn, curve, ts, batch, mesh=mesh))
        seconds.append(time.perf_counter() - began)
    return {"points": num_points, "seconds": min(seconds[1:]), "traces": traces}


def devices(apply_fn: Any, curve: Bezier, batch: Batch, num_devices: int) -> dict[str, float]:
    """Operations of one device's program for 64 points over so many devices."""
    metric_fn = classification_metrics(apply_fn)
    mesh = make_mesh(jax.devices()[:num_devices])
    # A loop's body is counted once whatever its length, so all of a device's points go in one chunk.
    program = _evaluate.lower(
        curve,
        np.linspace(0, 1, 64, dtype=np.float32),
        {"": batch},
        metric_fns=(("", metric_fn),),
        mesh=mesh,
        chunk=64 // num_devices,
    ).compile()
    return {"devices": num_devices, "flops": float((program.cost_analysis() or {})["flops"])}


if __name__ == "__main__":
    main()
