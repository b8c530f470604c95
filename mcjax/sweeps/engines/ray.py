"""Runs jobs as tasks of a Ray cluster, which schedules them and restarts those of a lost node.

All nodes must see the sweep's folder at the same path and have the same mcjax installed.
"""

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcjax.errors import UserError
from mcjax.logs import say
from mcjax.sweeps import engines

CONNECT_SECONDS = 10.0


@dataclasses.dataclass
class Ray:
    """The running tasks."""

    options: engines.Options
    ray: Any
    tasks: list[Any] = dataclasses.field(default_factory=list)

    def dry_run(self, sweep_dir: Path, ids: Sequence[str]) -> str:
        """See `Engine`."""
        o = self.options
        where = o.address or os.environ.get("RAY_ADDRESS") or "a new cluster on this machine"
        return f"{len(ids)} Ray tasks of {o.cpus} CPU, {o.gpus} GPU, {o.tpus} TPU on {where}"

    def queued(self, sweep_dir: Path) -> set[str]:
        """See `Engine`: Ray ends the tasks of a launcher that has ended."""
        return set()

    def submit(self, sweep_dir: Path, ids: Sequence[str]) -> None:
        """See `Engine`."""
        o = self.options
        self._connect()
        resources: dict[str, float] = {"TPU": o.tpus} if o.tpus else {}
        asked = {"CPU": o.cpus, "GPU": o.gpus, **resources}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(all(node.get(k, 0) >= n for k, n in asked.items()) for node in nodes):
            wanted = ", ".join(f"{n} {k}" for k, n in asked.items() if n)
            say(f"no node of the cluster has {wanted} now; the jobs wait for one")
        task = self.ray.remote(
            num_cpus=o.cpus,
            num_gpus=o.gpus,
            resources=resources,
            max_retries=o.retries,
            retry_exceptions=[ChildProcessError],
        )(_task_fn())
        paths = [p for p in (os.getcwd(), os.environ.get("PYTHONPATH")) if p]
        for name in ids:
            job_dir = sweep_dir / "jobs" / name
            self.tasks.append(
                task.options(name=name).remote(str(job_dir), os.getcwd(), os.pathsep.join(paths))
            )

    def _connect(self) -> None:
        address = self.options.address or os.environ.get("RAY_ADDRESS") or "local"
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdigit():  # Ray itself retries for minutes
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            own = {"include_dashboard": False} if address == "local" else {}
            self.ray.init(
                address=address,
                log_to_driver=False,
                logging_level="error",
                configure_logging=False,
                **own,
            )
        except Exception as error:  # Ray raises many kinds of errors
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the Ray cluster at {address} can't be reached ({reason}); start it with "
                "`ray start --head`, give its --address, or leave --address out"
            ) from None

    def poll(self) -> bool:
        """See `Engine`."""
        if self.tasks:
            _, self.tasks = self.ray.wait(self.tasks, num_returns=len(self.tasks), timeout=0)
        return bool(self.tasks)

    def stop(self) -> None:
        """See `Engine`."""
        if not self.ray.is_initialized():
            return
        for task in self.tasks:
            self.ray.cancel(task, force=True)
        self.tasks = []
        self.ray.shutdown()


def _task_fn() -> Any:
    """The task, as a local function: Ray sends its code, so nodes need not import this module."""

    def attempt(job_dir: str, cwd: str, paths: str) -> int:
        with open(os.path.join(job_dir, "worker.txt"), "ab") as file:
            code = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "mcjax.sweeps.worker",
                    job_dir,
                    "--parent",
                    str(os.getpid()),
                ],
                cwd=cwd if os.path.isdir(cwd) else None,
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode
        if code < 0 or code >= 128:
            raise ChildProcessError(f"the worker was killed by signal {code % 128}")
        return code

    return attempt


def open_engine(options: engines.Options) -> Ray:
    """Opens the engine.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "the ray engine needs Ray, which is not installed; pip install 'mcjax[ray]'"
        ) from None
    return Ray(options, ray)
