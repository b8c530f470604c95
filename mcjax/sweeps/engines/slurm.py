"""Runs jobs as a Slurm array: writes a script and gives it to sbatch.

All nodes must see the sweep's folder at the same path and have the same mcjax installed. The launcher
does not wait: the same command with --dry_run shows the progress.
"""

import contextlib
import dataclasses
import itertools
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mcjax.errors import UserError
from mcjax.logs import say
from mcjax.sweeps import engines

LARGEST_ARRAY = 1000  # Slurm's MaxArraySize is 1001 unless an administrator has raised it
WAITING = ("PENDING", "CONFIGURING", "RUNNING", "REQUEUED", "SUSPENDED", "COMPLETING")


@dataclasses.dataclass
class Slurm:
    """Writes and submits scripts with some options."""

    options: engines.Options

    def dry_run(self, sweep_dir: Path, ids: Sequence[str]) -> str:
        """See `Engine`."""
        arrays = split(ids)
        return "\n".join(
            f"# {self._list_file(sweep_dir, i)} lists {len(part)} jobs for this script:\n"
            + self.script(sweep_dir, part, self._list_file(sweep_dir, i))
            for i, part in enumerate(arrays)
        )

    def script(self, sweep_dir: Path, ids: Sequence[str], list_file: Path) -> str:
        """The script of one array.

        Args:
            sweep_dir: The sweep's folder.
            ids: The jobs of the array.
            list_file: The file that lists their ids, one per line.

        Returns:
            The text of the script.
        """
        o = self.options
        at_a_time = f"%{o.parallel}" if o.parallel else ""
        lines = [
            f"--job-name=mcjax-{sweep_dir.name}",
            f"--array=0-{len(ids) - 1}{at_a_time}",
            f"--cpus-per-task={o.cpus}",
            *([f"--gres=gpu:{o.gpus}"] if o.gpus else []),
            f"--output={list_file.parent}/%A_%a.txt",
            "--open-mode=append",
            "--requeue",
            *o.sbatch,
        ]
        if bad := [line for line in lines if "\n" in line]:
            raise UserError(f"the sbatch option {bad[0]!r} has more than one line")
        worker = shlex.join(engines.worker_command(Path("JOB"))).removesuffix("JOB")
        paths = ":".join(p for p in (os.getcwd(), os.environ.get("PYTHONPATH")) if p)
        return "\n".join(
            [
                "#!/bin/bash",
                *(f"#SBATCH {line}" for line in lines),
                "set -euo pipefail",
                f"cd {shlex.quote(os.getcwd())}",
                f"export PYTHONPATH={shlex.quote(paths)}",
                f'job=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(list_file))})',
                f'exec {worker}{shlex.quote(str(sweep_dir / "jobs"))}/"$job"',
                "",
            ]
        )

    def queued(self, sweep_dir: Path) -> set[str]:
        """See `Engine`: the jobs of earlier arrays that Slurm still holds."""
        held: set[str] = set()
        if shutil.which("squeue") is None:
            return held
        for list_file in sorted((sweep_dir / "slurm").glob("*.jobs")):
            try:
                number = list_file.with_suffix(".submitted").read_text().strip()
                ids = list_file.read_text().splitlines()
            except (OSError, ValueError):
                continue  # the array's number is lost, so squeue cannot be asked
            done = subprocess.run(
                ["squeue", "--noheader", "--array", f"--jobs={number}", "--format=%K %T"],
                capture_output=True,
                text=True,
            )
            # Slurm may have forgotten a finished array; then squeue fails, and no job is held.
            for line in done.stdout.splitlines() if done.returncode == 0 else ():
                index, _, status = line.strip().partition(" ")
                if status in WAITING and index.isdigit() and int(index) < len(ids):
                    held.add(ids[int(index)])
        return held

    def submit(self, sweep_dir: Path, ids: Sequence[str]) -> None:
        """See `Engine`."""
        if shutil.which("sbatch") is None:
            raise UserError(
                "the slurm engine needs sbatch, which is not installed here; "
                "run this on a login node of the cluster, or add --dry_run to see the script"
            )
        (sweep_dir / "slurm").mkdir(exist_ok=True)
        for part in split(ids):
            list_file = self._claimed(sweep_dir)
            list_file.with_suffix(".tmp").write_text("\n".join(part) + "\n")
            script = list_file.with_suffix(".sh")
            script.write_text(self.script(sweep_dir, part, list_file))
            done = subprocess.run(
                ["sbatch", "--parsable", str(script)], capture_output=True, text=True
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
                raise UserError(f"sbatch {script} failed: {reason}; fix that and run again")
            number = done.stdout.strip().split(";")[0]
            list_file.with_suffix(".submitted").write_text(number + "\n")
            list_file.with_suffix(".tmp").rename(list_file)
            say(f"submitted array job {number}: {len(part)} jobs, {script}")

    def _claimed(self, sweep_dir: Path) -> Path:
        """A list file that no other launcher uses: creating its script claims it."""
        for ahead in itertools.count():
            list_file = self._list_file(sweep_dir, ahead)
            with contextlib.suppress(FileExistsError):
                list_file.with_suffix(".sh").touch(exist_ok=False)
                return list_file
        raise AssertionError

    def _list_file(self, sweep_dir: Path, ahead: int) -> Path:
        folder = sweep_dir / "slurm"
        taken = [int(f.stem) for f in folder.glob("*.sh") if f.stem.isdigit()]
        return folder / f"{max(taken, default=0) + 1 + ahead:04d}.jobs"

    def poll(self) -> bool:
        """See `Engine`: the launcher does not wait for Slurm."""
        return False

    def stop(self) -> None:
        """See `Engine`: submitted jobs stay; scancel ends them."""


def split(ids: Sequence[str]) -> list[Sequence[str]]:
    """Splits jobs into groups that fit into one array."""
    return [ids[i : i + LARGEST_ARRAY] for i in range(0, len(ids), LARGEST_ARRAY)]


def open_engine(options: engines.Options) -> Slurm:
    """Opens the engine.

    Raises:
        UserError: TPU chips are requested, which this engine does not support.
    """
    if options.tpus:
        raise UserError(
            "the slurm engine does not know TPUs; leave out --tpus, and name your "
            "cluster's resource by --sbatch=--gres=NAME"
        )
    return Slurm(options)
