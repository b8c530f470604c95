"""One network: mcjax and PyTorch take turns at the same work, in three precisions."""

import importlib.util
import statistics
import tempfile
from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np

from benchmarks.accelerator import numbers
from benchmarks.accelerator.networks import network, operations
from benchmarks.accelerator.record import Row
from benchmarks.worker import Worker

# bfloat16 first, which the goals are about; float32 is rarely used on such cards.
PRECISIONS = ("bfloat16", "tf32", "float32")
# Largest relative difference of losses between the frameworks (of eigenvalues: of their mean).
TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 1e-1}
WORKS = ("step", "pgd", "path", "point", "eigenvalue")


def rows(name: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """A row for each work and precision, with the seconds of every variant that ran.

    Args:
        name: The network.
        done: Names of rows to leave out.
        tiny: One precision instead of three.

    Yields:
        "seconds" by variant of a whole call; "units", how many steps, points or images that is;
        "operations" of it; "first" call's seconds; "worst" difference of the results between frameworks, its
        "tolerance"; "failed" variants and why.
    """
    precisions = ("float32",) if tiny else PRECISIONS
    wanted = [
        (work, precision)
        for work in WORKS
        for precision in precisions
        if f"{work} {precision}" not in done
    ]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        shapes = Path(folder) / "shapes.json"
        ours = Worker("benchmarks.accelerator.ours", name, shapes)
        theirs = None
        try:
            if importlib.util.find_spec("torch"):
                drawn = ours.call("draws")
                theirs = Worker("benchmarks.accelerator.theirs", name, shapes, drawn)
            errors = []
            for work, precision in wanted:
                try:
                    yield one(name, work, precision, ours, theirs)
                except RuntimeError as error:  # the other works are none the worse
                    errors.append(str(error))
                    yield {"name": f"{work} {precision}", "error": str(error)}
            if errors:
                raise RuntimeError("; ".join(errors))
        finally:
            ours.close()
            if theirs:
                theirs.close()


def one(name: str, work: str, precision: str, ours: Worker, theirs: Worker | None) -> Row:
    """Times one work in one precision: a call of each variant untimed, then in turns."""
    size, net = numbers.sizes(name), network(name)
    what = {"eigenvalue": ("exact", "power") if net.piecewise_linear else ("power",)}.get(
        work, (work,)
    )
    calls: dict[str, tuple[Worker, tuple[str, ...]]] = {
        ("mcjax" if kind in (work, "power") else f"mcjax {kind}"): (ours, (kind, precision))
        for kind in what
    }
    if theirs and work != "path":  # 61 points of theirs are 61 times its point
        kind = "power" if work == "eigenvalue" else work
        variants = ("eager", "channels_last") if kind == "power" else theirs.call("variants")
        for variant in variants:
            calls[f"torch {variant}"] = (theirs, (kind, precision, variant))
    seconds: dict[str, list[float]] = {variant: [] for variant in calls}
    first, results, failed = {}, {}, {}
    for turn in range(size.repeats + 1):
        for variant, (worker, args) in calls.items():
            if variant in failed:
                continue
            try:
                took, found = worker.time(*args)
            except RuntimeError as error:  # the others go on: a variant is not the piece
                failed[variant] = str(error)[:300]
                continue
            if turn == 0:
                first[variant], results[variant] = took, found
            else:
                seconds[variant].append(found.get("seconds", took))
    if theirs:
        theirs.call("forget")
    if "mcjax" in failed:
        raise RuntimeError(failed["mcjax"])
    units, passes = {
        "step": (size.steps, 3 * size.batch * size.steps),
        "pgd": (size.evaluation_batch, 2 * numbers.PGD_STEPS * size.evaluation_batch),
        "path": (size.points, _images(name) * size.points),
        "point": (1, _images(name)),
        "eigenvalue": (size.hessian, 0),
    }[work]
    return {
        "name": f"{work} {precision}",
        "network": name,
        "work": work,
        "precision": precision,
        "seconds": {v: statistics.median(s) for v, s in seconds.items() if s},
        "all_seconds": seconds,
        "first": first,
        "units": units,
        "operations": passes * operations(name),
        "sizes": vars(size),
        "worst": {v: difference(results["mcjax"], r) for v, r in results.items() if v != "mcjax"},
        "tolerance": TOLERANCE[precision],
        "peak_bytes": {"mcjax": ours.call("memory")["peak_bytes"]}
        | ({"torch": theirs.call("memory")["peak_bytes"]} if theirs else {}),
        "failed": failed,
    }


def _images(name: str) -> int:
    """Forward passes of a point: BatchNorm's recomputation is a pass over the training images more."""
    size = numbers.sizes(name)
    return size.train * (2 if network(name).has_batch_stats else 1) + size.test


def difference(a: Row, b: Row) -> float:
    """The largest difference of two results: of losses relative, of eigenvalues that of their means."""
    (name,) = set(a) - {"seconds"}
    x, y = np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)
    if name == "eigenvalue":
        x, y = x.mean(), y.mean()
    return float(np.max(np.abs(x - y) / np.abs(x)))
