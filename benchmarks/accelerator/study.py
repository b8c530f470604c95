"""A backdoor study of many seeds side by side in one program."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Set

from benchmarks.accelerator.record import Row


def rows(_: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """Seconds of configs/backdoor_digits.py with 16 seeds, and with one.

    Args:
        _: Not used.
        done: Names of rows to leave out.
        tiny: The main job's quick config instead, whose two networks are trained side by side.

    Yields:
        "seeds", "seconds", compilation included.
    """
    config = "configs/digits.py:quick" if tiny else "configs/backdoor_digits.py"
    for seeds in (1,) if tiny else (16, 1):
        if f"{seeds} seeds" in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "mcjax.train", "--config", config, f"--workdir={folder}/run",
                "--config.run.side_by_side=True",
                *([] if tiny else [f"--config.seeds=({','.join(map(str, range(seeds)))},)"]),
            ]  # fmt: skip
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            yield {"name": f"{seeds} seeds", "seeds": seeds, "seconds": time.perf_counter() - began}
