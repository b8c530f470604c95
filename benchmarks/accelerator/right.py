"""Is it right there? The digits runs on this device and on the CPU, and one path evaluated on both."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from benchmarks.accelerator.record import Row

STUDIES = ("backdoor_digits", "injection_digits", "evasion_digits")
# Of losses, relative to 0.01 + loss: one path, whose networks were trained once, in float32 and in
# the precision that JAX takes by itself (TF32).
SAME_NETWORKS = {"float32": 1e-3, "default": 5e-2}
# Of accuracies, where each device trained its own networks: rounding grows with every step.
TRAINED_APART = 0.02
FEW_IMAGES = 0.1  # of the quick studies' 16 to 32 images
RATES = ("accuracy", "rate", "success")


def rows(_: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """The largest difference between the devices, and the tolerance, for every comparison.

    Args:
        _: Not used.
        done: Names of rows to leave out.
        tiny: Only the main job, quick.

    Yields:
        "worst", "tolerance", "seconds" {"device", "cpu"} of the commands (which ran side by side).

    Raises:
        RuntimeError: A command failed.
    """
    main = "digits:quick" if tiny else "digits"
    studies = [] if tiny else [f"{study}:quick" for study in STUDIES]
    studies = [study for study in studies if study not in done]
    same = [f"{main}, same networks, {precision}" for precision in SAME_NETWORKS]
    again = not {f"{main}, trained apart", *same} <= done
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            (config, device): Run(
                Path(folder) / f"{config.replace(':', '_')}_{device}", device, _train(config)
            )
            for config in ([main] if again else []) + studies
            for device in ("cpu", "device")
        }
        if again:
            yield from of_main_job(main, runs, Path(folder), points=3 if tiny else 61)
        for study in studies:
            theirs, ours = (runs[study, device].wait() for device in ("cpu", "device"))
            worst = apart(theirs / "table.csv", ours / "table.csv")
            yield {"name": study, "worst": worst, "tolerance": FEW_IMAGES, **_seconds(runs, study)}


def of_main_job(main: str, runs: dict[Any, "Run"], folder: Path, points: int) -> Iterator[Row]:
    """The main job's rows: trained apart, and the CPU's networks looked at on the device."""
    theirs, ours = (runs[main, device].wait() for device in ("cpu", "device"))
    tolerance = FEW_IMAGES if ":" in main else TRAINED_APART
    worst = apart(theirs / "table.csv", ours / "table.csv", skip=("line_worst",))
    yield {
        "name": f"{main}, trained apart",
        "worst": worst,
        "tolerance": tolerance,
        **_seconds(runs, main),
    }
    path = f"evaluations/points_{points}/path.csv"
    look = ["evaluate", f"--num_points={points}"]
    copies = {}
    for device, precision in (("cpu", "float32"), *(("device", p) for p in SAME_NETWORKS)):
        copy = folder / f"copy_{device}_{precision}"
        shutil.copytree(theirs, copy)
        copies[device, precision] = Run(copy, device, look, precision)
    expected = copies["cpu", "float32"].wait() / path
    for precision, limit in SAME_NETWORKS.items():
        found = copies["device", precision].wait() / path
        worst = losses_apart(expected, found)
        yield {"name": f"{main}, same networks, {precision}", "worst": worst, "tolerance": limit}


class Run:
    """A command of mcjax in the background, on the CPU or on what JAX finds.

    Args:
        workdir: Of the run.
        device: "cpu", or "device".
        command: Of `python -m mcjax.COMMAND`, and its flags.
        precision: Of matrix products: "float32", or "default", JAX's own.
    """

    def __init__(self, workdir: Path, device: str, command: list[str], precision: str = "float32"):
        environment = dict(os.environ)
        if device == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
        if precision != "default":
            environment["JAX_DEFAULT_MATMUL_PRECISION"] = precision
        module, *flags = command
        self._command = f"mcjax.{' '.join(command)} on the {device}"
        self._workdir = workdir
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"mcjax.{module}", *flags, f"--workdir={workdir}"],
            env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self) -> Path:
        """The run's folder, once it has ended.

        Raises:
            RuntimeError: It failed.
        """
        if self._process.wait():
            raise RuntimeError(f"{self._command} failed; the log says why")
        return self._workdir


def _train(config: str) -> list[str]:
    name, _, word = config.partition(":")
    return ["train", f"--config=configs/{name}.py" + (f":{word}" if word else "")]


def _seconds(runs: dict[Any, Run], config: str) -> Row:

    times = {}
    for device in ("cpu", "device"):
        result = json.loads((runs[config, device].wait() / "result.json").read_text())
        times[device] = result["seconds"]
    return {"seconds": times}


def apart(a: Path, b: Path, skip: tuple[str, ...] = ()) -> float:
    """The largest difference of an accuracy or rate between two tables of the same rows."""
    worst = 0.0
    first, second = _read(a), _read(b)
    if len(first) != len(second):
        raise RuntimeError(f"{a} has {len(first)} rows and {b} {len(second)}")
    for x, y in zip(first, second, strict=True):
        if next(iter(x.values())) in skip:
            continue
        for name in x:
            if name.endswith(RATES) and x[name] and y[name]:
                worst = max(worst, abs(float(x[name]) - float(y[name])))
    return worst


def losses_apart(a: Path, b: Path) -> float:
    """The largest |x - y| / (0.01 + x) over the losses of two path.csv."""
    worst = 0.0
    for x, y in zip(_read(a), _read(b), strict=True):
        for name in x:
            if name.endswith("loss"):
                p, q = float(x[name]), float(y[name])
                worst = max(worst, abs(p - q) / (0.01 + p))
    return worst


def _read(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))
