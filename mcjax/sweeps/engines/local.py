"""Runs jobs as subprocesses on this machine, a few at a time."""

import collections
import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mcjax.sweeps import engines

TERM_SECONDS = 15.0


@dataclasses.dataclass
class Local:
    """The waiting jobs, and the running workers."""

    options: engines.Options
    sweep_dir: Path = Path()
    waiting: collections.deque[str] = dataclasses.field(default_factory=collections.deque)
    workers: dict[str, subprocess.Popen] = dataclasses.field(default_factory=dict)
    retried: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def dry_run(self, sweep_dir: Path, ids: Sequence[str]) -> str:
        """See `Engine`."""
        return f"{len(ids)} jobs on this machine, {self.options.parallel or 1} at a time"

    def queued(self, sweep_dir: Path) -> set[str]:
        """See `Engine`: nothing outlives the launcher."""
        return set()

    def submit(self, sweep_dir: Path, ids: Sequence[str]) -> None:
        """See `Engine`."""
        self.sweep_dir = sweep_dir
        self.waiting.extend(ids)

    def poll(self) -> bool:
        """See `Engine`."""
        for name, worker in list(self.workers.items()):
            code = worker.poll()
            if code is None:
                continue
            del self.workers[name]
            killed = code < 0 or code >= 128
            if killed and self.retried[name] < self.options.retries:
                self.retried[name] += 1
                self.waiting.appendleft(name)
        while self.waiting and len(self.workers) < (self.options.parallel or 1):
            name = self.waiting.popleft()
            self.workers[name] = self._start(self.sweep_dir / "jobs" / name)
        return bool(self.workers)

    def _start(self, job_dir: Path) -> subprocess.Popen:
        with (job_dir / "worker.txt").open("ab") as file:
            return subprocess.Popen(
                [*engines.worker_command(job_dir), "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the launcher
            )

    def stop(self) -> None:
        """See `Engine`."""
        self.waiting.clear()
        for worker in self.workers.values():
            worker.terminate()
        for worker in self.workers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(TERM_SECONDS)
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.workers.clear()


def open_engine(options: engines.Options) -> Local:
    """Opens the engine."""
    return Local(options)
