"""How long programs take to compile, and with a warm cache: each in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Set

from benchmarks.accelerator.record import Row

CODE = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
from benchmarks.accelerator import ours
name = sys.argv[1]
works = ours.prepare(name, Path(sys.argv[2]))
found = {"start": time.perf_counter() - began}
for work in sys.argv[3:]:
    took = []
    for _ in range(2):
        began = time.perf_counter()
        works[work]("bfloat16")
        took.append(time.perf_counter() - began)
    found[work] = took[0] - took[1]  # what the first call costs more than the second
print(json.dumps(found))
"""


def rows(name: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """Seconds to import and prepare, and by which the first call of a program exceeds the second.

    Args:
        name: The network.
        done: Names of rows to leave out.
        tiny: The training step alone.

    Yields:
        "start" and each of "step", "point" in seconds, of a cold cache and of a warm one.
    """
    if {"cold", "warm"} <= done:
        return
    works = ("step",) if tiny else ("step", "point")
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for cache in ("cold", "warm"):
            command = [sys.executable, "-c", CODE, name, f"{folder}/shapes.json", *works]
            answer = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            found = json.loads(answer.stdout.splitlines()[-1])
            yield {"name": cache, "network": name, **found}
