"""mcjax beside PyTorch and stock JAX: the same work, alternating, in one run.

    python -m benchmarks.side_by_side [--networks convfc vgg16] [--works step point] [--repeats 5]

Needs the extra mcjax[bench]. Each framework has a process of its own and waits while another
works. Results are compared before anything is timed; the first call, with its compilation, is
counted apart. Finished pieces are kept in benchmarks/results.json, and benchmarks/results.md and
results.png are made from it, so parts can be run again.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import inputs, mcjax_work, report
from benchmarks.operations import forward_operations, matrix_product_limit
from benchmarks.pieces import machine
from benchmarks.torch_work import VARIANTS
from benchmarks.worker import Worker

FILE = Path(__file__).parent / "results.json"
# Steps in a dispatch, or points in a call; the work on one point is of 1,000 images. Few steps would
# measure the copy of the state at the head of a call: a training has a hundred or more.
SIZES = {
    "step": {"convfc": 30, "preresnet26": 16, "vgg16": 8},
    "point": dict.fromkeys(inputs.NETWORKS, 1),
    "pgd": dict.fromkeys(inputs.NETWORKS, 1),
    "path": dict.fromkeys(inputs.NETWORKS, 61),
}


def main() -> None:
    """Runs what is asked for and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", choices=inputs.NETWORKS, default=[*inputs.NETWORKS]
    )
    parser.add_argument("--works", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument(
        "--variants", nargs="+", choices=("stock", *VARIANTS), default=["stock", *VARIANTS]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    results: dict[str, Any] = {"rows": {}}
    if options.output.exists():
        results = json.loads(options.output.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for network in options.networks:
            file = inputs.write_inputs(network, Path(folder))
            for work in options.works:
                row = measure(network, file, work, options.variants, options.repeats)
                results["rows"][f"{network} {work}"] = row
                options.output.write_text(json.dumps(results, indent=1) + "\n")
    report.write(options.output)


def measure(
    network: str, file: Path, work: str, variants: list[str], repeats: int
) -> dict[str, Any]:
    """Times one piece of work in all variants, in turn.

    Args:
        network: The network.
        file: Its inputs.
        work: "step", "point", "pgd" or "path".
        variants: What to time beside mcjax.
        repeats: Timed calls of each; a path, which is long, has one.

    Returns:
        Seconds of one step or point by variant, of the first call, GF/s, the limit.

    Raises:
        SystemExit: The variants do not compute the same.
    """
    size = SIZES[work][network]
    repeats = 1 if work == "path" else repeats
    if work == "path":  # too long for stock JAX, and to choose the tuned variant again
        variants = [v for v in variants if v != "stock"]
    workers = {v: _worker(network, file, v) for v in ("mcjax", *variants)}
    first, checked = {}, {}
    # Stock JAX takes minutes for a step of VGG16 in a loop: one is enough.
    sizes = {v: 1 if (v, work) == ("stock", "step") else size for v in workers}
    for variant, worker in workers.items():
        first[variant], checked[variant] = worker.time(
            work, 1 if work == "path" else sizes[variant]
        )
    compare(network, file, work, checked)
    seconds: dict[str, list[float]] = {v: [] for v in workers}
    for i in range(repeats):
        for variant, worker in workers.items():
            if variant == "stock" and i > 0:
                continue
            duration, _ = worker.time(work, sizes[variant])
            seconds[variant].append(duration / sizes[variant])
            print(f"{network} {work} {variant}: {seconds[variant][-1]:.3f} s", file=sys.stderr)
    for worker in workers.values():
        worker.close()
    passes = {"step": 3 * inputs.BATCH_SIZE, "pgd": 2 * inputs.PGD_STEPS * inputs.BATCH_SIZE}
    images = passes.get(work, inputs.NUM_IMAGES)
    operations = forward_operations(network, 1) * images
    medians = {v: float(np.median(s)) for v, s in seconds.items()}
    return {
        "network": network,
        "work": work,
        "size": size,
        "seconds": medians,
        "all_seconds": seconds,
        "first_call_seconds": first,
        "effective_gflops": {v: operations / s / 1e9 for v, s in medians.items()},
        "limit_gflops": matrix_product_limit() / 1e9,
        **machine(),
    }


def _worker(network: str, file: Path, variant: str) -> Worker:
    ours = variant in ("mcjax", "stock")
    module = "benchmarks.mcjax_work" if ours else "benchmarks.torch_work"
    return Worker(module, network, file, variant)


def compare(network: str, file: Path, work: str, results: dict[str, dict[str, np.ndarray]]) -> None:
    """Stops if a variant's results differ from mcjax's by more than rounding."""
    ours = results["mcjax"]
    for variant, theirs in results.items():
        if work == "pgd":
            # Signs of tiny gradients differ by rounding; the strength of the attack does not.
            a, b = (mcjax_work.loss_at(network, file, r["images"]) for r in (ours, theirs))
            worst = abs(a - b) / abs(a)
            equal = worst < 0.02
        else:
            name = "losses" if work == "step" else "loss"
            n = min(len(ours[name]), len(theirs[name]))
            worst = float(np.max(np.abs(ours[name][:n] / theirs[name][:n] - 1)))
            equal = worst < 1e-3
        if not equal:
            sys.exit(
                f"{network} {work}: {variant} differs from mcjax by {worst:.2g}; nothing timed"
            )


if __name__ == "__main__":
    main()
