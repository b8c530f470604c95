"""What a sweep of many jobs costs to look at: dry run, scan of the states, gathering, as whole commands.

    python -m benchmarks.thousand_jobs
    python -m benchmarks.thousand_jobs --jobs 200 --repeats 1

Nothing is trained: every job gets the files of a repaired run, 40 rows a table.
"""

import argparse
import contextlib
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mcjax.experiments.methods import METHODS
from mcjax.sweeps import declare, store
from mcjax.sweeps.store import Job

ROOT = Path(__file__).parents[1]
SWEEP = """
from mcjax.sweeps.declare import Sweep, grid
from mcjax import config

def get_sweep():
    triggers = [f"blended:alpha={{i / 100}}" for i in range(1, {num_settings} + 1)]
    return Sweep(config.backdoor(), grid({{"attack.trigger": triggers, "seed": range(5)}}))
"""
COLUMNS = ("method", "bonafide", "seed", "t", "clean_accuracy", "attack_success_rate")


def main() -> None:
    """Prints the median seconds of every command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000, help="how many, a multiple of 5")
    parser.add_argument("--repeats", type=int, default=3, help="runs of every command")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sweep, folder = Path(name) / "many.py", Path(name) / "sweep"
        sweep.write_text(SWEEP.format(num_settings=args.jobs // 5))
        launch = (*("-m", "launch.sweep"), f"--sweep={sweep}", f"--workdir={folder}", "--dry_run")
        timed("dry run, nothing done", launch, args.repeats)
        leave(folder, declare.load(sweep))
        scanned = timed("dry run, all done", launch, args.repeats)
        gathered = timed("gathering", ("-m", "mcjax.report", str(folder)), args.repeats)
        print(f"dry run with its scan, and gathering: {scanned + gathered:.1f} s")


def timed(what: str, command: Sequence[str], repeats: int) -> float:
    """The median seconds of a command as a whole process."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds.append(time.perf_counter() - began)
    print(f"{what}: {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})")
    return statistics.median(seconds)


def leave(folder: Path, declared: Sequence[Job]) -> None:
    """What launch.sweep leaves when every job has its result."""
    store.write_sweep(folder, "many", {}, declared)
    for number, job in enumerate(declared):
        attempt = store.job_dir(folder, job.id) / "attempts" / "0001"
        attempt.mkdir(parents=True)
        result = {"config_hash": job.config_hash, "attempt": "0001", "exit_code": 0}
        metrics = {"path_2500": number / len(declared)}
        write(attempt / "config.json", {"hash": job.config_hash, "hashed": dict(job.config)})
        write(attempt.parents[1] / "result.json", {**result, "seconds": 1.0, "metrics": metrics})
        with (attempt / "table.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for method in METHODS:
                for size in (2500, 1000, 500, 250, 50):
                    table.writerow([method, size, job.config["seed"], 0.5, 0.9, number / 1000])


def write(path: Path, content: object) -> None:
    """A JSON file."""
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
