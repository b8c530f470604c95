"""The project's own tests that are marked `accelerator`, on this device."""

import re
import subprocess
import sys
from collections.abc import Iterator, Set

from benchmarks.accelerator.record import Row


def rows(_: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """How many passed, file by file.

    Args:
        _: Not used.
        done: Names of rows to leave out.
        tiny: One file of tests instead of all.

    Yields:
        "passed", "failed", and "failures", the names of those.

    Raises:
        RuntimeError: No test ran, or pytest stopped.
    """
    files = ["tests/training/test_losses.py"] if tiny else ["tests"]
    command = [
        sys.executable, "-m", "pytest", "--accelerator", "-v", "-p", "no:cacheprovider", *files,
        "-o", "addopts=",  # not spread over processes, which would share one card
        *(f"--ignore={file}" for file in done),
    ]  # fmt: skip
    found: dict[str, Row] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")  # for the log
            result = re.match(r"(\S+?)::(.+) (PASSED|FAILED|ERROR)", line)
            if result is None:
                continue
            file, test, word = result.groups()
            if file not in found:
                yield from list(found.values())[-1:]  # the file before is through
                found[file] = {"name": file, "passed": 0, "failed": 0, "failures": []}
            if word == "PASSED":
                found[file]["passed"] += 1
            else:
                found[file]["failed"] += 1
                found[file]["failures"].append(test)
    yield from list(found.values())[-1:]
    if process.returncode not in (0, 1) or not (found or done):
        raise RuntimeError(f"pytest ended with {process.returncode}; the log says why")
