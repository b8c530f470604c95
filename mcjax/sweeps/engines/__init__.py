"""Engines run a sweep's workers: on this machine, on a Ray cluster, or through Slurm.

An engine is a module with `open_engine(options) -> Engine`; to add one, add its name to `ENGINES`.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mcjax.errors import UserError

ENGINES = ("local", "ray", "slurm")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the engines.

    Args:
        parallel: Jobs at a time; 0 leaves it to the engine.
        retries: How often to restart a job whose worker was killed, in one call.
        cpus: CPU cores per job.
        gpus: GPUs per job.
        tpus: TPU chips per job.
        address: A Ray cluster; "" means RAY_ADDRESS, or a new cluster on this machine.
        sbatch: More options of sbatch.
    """

    parallel: int = 0
    retries: int = 2
    cpus: int = 1
    gpus: int = 0
    tpus: int = 0
    address: str = ""
    sbatch: Sequence[str] = ()


class Engine(Protocol):
    """Runs `python -m mcjax.sweeps.worker JOB_DIR` for jobs. `store.scan` tells how they ended."""

    def dry_run(self, sweep_dir: Path, ids: Sequence[str]) -> str:
        """Describes what `submit` would do; starts and writes nothing."""

    def queued(self, sweep_dir: Path) -> set[str]:
        """The jobs that an earlier call submitted and that have not started yet."""

    def submit(self, sweep_dir: Path, ids: Sequence[str]) -> None:
        """Starts jobs, or queues them.

        Raises:
            UserError: The engine cannot be reached.
        """

    def poll(self) -> bool:
        """Whether jobs are still running; called about once per second."""

    def stop(self) -> None:
        """Ends what must not outlive this process; always called, also after an error."""


def get(name: str, options: Options) -> Engine:
    """Opens an engine.

    Raises:
        UserError: No engine has that name, or it is not installed.
    """
    if name not in ENGINES:
        raise UserError(f"unknown engine {name!r}; use one of {', '.join(ENGINES)}")
    return importlib.import_module(f"mcjax.sweeps.engines.{name}").open_engine(options)


def worker_command(job_dir: Path, python: str = sys.executable) -> list[str]:
    """The command that engines run for a job."""
    return [python, "-m", "mcjax.sweeps.worker", str(job_dir)]
