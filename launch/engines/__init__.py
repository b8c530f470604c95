"""The engines that run jobs. None is a scheduler of ours.

An engine is a module with `open_engine(options) -> Engine`; the name of a new one is a line in `ENGINES`.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mcjax.core.errors import UserError

ENGINES = ("local", "ray", "slurm")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user asks of an engine.

    Args:
        parallel: Jobs at a time; 0 leaves it to the engine.
        retries: How often a job whose worker was killed begins again in one call.
        cpus: CPU cores a job.
        gpus: GPUs a job.
        tpus: TPU chips a job.
        address: Of a Ray cluster; "" is RAY_ADDRESS or one on this machine.
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
    """Runs `python -m launch.worker JOB_DIR` for jobs; what came of it, their directories tell."""

    def dry_run(self, sweep_dir: Path, ids: Sequence[str]) -> str:
        """What `submit` would do, for people; nothing is started or written."""

    def queued(self, sweep_dir: Path) -> set[str]:
        """Jobs that an earlier call has handed over and that still wait for their turn."""

    def submit(self, sweep_dir: Path, ids: Sequence[str]) -> None:
        """Begins.

        Raises:
            UserError: The engine can't be reached.
        """

    def poll(self) -> bool:
        """Whether there is something to wait for; called every second or so."""

    def stop(self) -> None:
        """Ends what this process has begun and has to end with it; called whatever happens."""


def get(name: str, options: Options) -> Engine:
    """An engine, ready to be given jobs.

    Raises:
        UserError: There is none of that name, or it is not installed.
    """
    if name not in ENGINES:
        raise UserError(f"unknown engine {name!r}; use one of {', '.join(ENGINES)}")
    return importlib.import_module(f"launch.engines.{name}").open_engine(options)


def worker_command(job_dir: Path, python: str = sys.executable) -> list[str]:
    """The command that every engine runs for a job."""
    return [python, "-m", "launch.worker", str(job_dir)]
