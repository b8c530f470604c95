"""Measures how long the configs' jobs take and writes the times where they are promised.

    python -m benchmarks.promised                          # digits, the other digits studies, fashion_cnn
    python -m benchmarks.promised digits evasion_digits    # only these
    python -m benchmarks.promised --from benchmarks/promised.json   # write again, measure nothing

Each config's job runs three times, in a new folder and with an empty cache of compiled programs. The median
and the range go into the heads of the configs ("Cost: ..."), README.md and docs/index.md, and with every
single time into benchmarks/promised.json. The machine must be idle; a load above 0.5 is refused.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = ("digits", "evasion_digits", "injection_digits", "backdoor_digits", "fashion_cnn")
IDLE = 0.5  # load average of one minute

COST = r"Cost: .*?\.(?=\s)"
"""The sentence in a config's head."""

PLACES = {
    "digits": {
        "README.md": r"(?<=It takes ).*?(?= on two CPU cores)",
        "docs/index.md": r"(?<=It takes ).*?(?= on two CPU cores)",
    },
    "evasion_digits": {"README.md": r"(?<=evasion_digits\.py           # ).*?(?=: three pairs)"},
    "fashion_cnn": {"README.md": r"(?<=real Fashion-MNIST, ).*"},
}
"""Where else a config's time is promised: a pattern per file, which matches the time alone."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="measure on a machine that is not idle")
    parser.add_argument("--from", dest="source", help="a promised.json to write the times of")
    options = parser.parse_args(argv)
    if options.source:
        found = json.loads(Path(options.source).read_text())["seconds"]
    else:
        load = os.getloadavg()[0]
        if load > IDLE and not options.busy:
            sys.exit(f"the machine is not idle (load {load:.2f}); end other work, or add --busy")
        found = {}
        for name in options.configs:
            found[name] = [job_seconds(name) for _ in range(options.repeats)]
            print(f"{name}: {in_words(found[name])}", flush=True)
        record(ROOT / "benchmarks" / "promised.json", found)
    for path in write(ROOT, found):
        print(f"written: {path.relative_to(ROOT)}")


def job_seconds(name: str) -> float:
    """Runs a config's job from nothing to the report, and returns its seconds.

    Args:
        name: The config's name.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "-m",
            "mcjax.train",
            "--config",
            f"configs/{name}.py",
            "--workdir",
            f"{folder}/run",
        ]
        apart = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        began = time.monotonic()
        subprocess.run([sys.executable, *words], cwd=ROOT, env=apart, check=True)
        return time.monotonic() - began


def record(path: Path, seconds: Mapping[str, Sequence[float]]) -> None:
    """Writes every time, with the number of cores; times of other configs are kept.

    Args:
        path: The JSON file.
        seconds: The times by config.
    """
    before = json.loads(path.read_text())["seconds"] if path.exists() else {}
    rounded = {name: [round(s, 1) for s in times] for name, times in seconds.items()}
    content = {"cores": os.cpu_count(), "seconds": {**before, **rounded}}
    path.write_text(json.dumps(content, indent=2) + "\n")


def write(root: Path, seconds: Mapping[str, Sequence[float]]) -> list[Path]:
    """Writes the times where they are promised.

    Args:
        root: The repository, or a copy.
        seconds: The times by config.

    Returns:
        The files that changed.

    Raises:
        ValueError: A file does not have the place exactly once; nothing is written then.
    """
    texts: dict[Path, str] = {}

    def replace(file: Path, pattern: str, new: str) -> None:
        text = texts.get(file, file.read_text())
        found = re.findall(pattern, text, re.S if pattern == COST else 0)
        if len(found) != 1:
            raise ValueError(f"{file} has {len(found)} places for {pattern!r}; correct PLACES")
        texts[file] = text.replace(found[0], new)

    for name, times in seconds.items():
        cost = f"Cost: {in_words(times)} on {os.cpu_count()} CPU cores, compilation included."
        replace(root / "configs" / f"{name}.py", COST, cost)
        for place, pattern in PLACES.get(name, {}).items():
            replace(root / place, pattern, in_words(times))
    changed = [file for file, text in texts.items() if text != file.read_text()]
    for file in changed:
        file.write_text(texts[file])
    return changed


def in_words(times: Sequence[float]) -> str:
    """The median and the range.

    Example:
        >>> in_words([19.6, 24.2, 21.0]), in_words([99, 101, 130])
        ('21 s (20 to 24 s)', '1 min 41 s (1 min 39 s to 2 min 10 s)')
    """
    middle, low, high = map(_duration, (statistics.median(times), min(times), max(times)))
    if low.endswith(" s") and "min" not in low + high:
        low = low.removesuffix(" s")
    return f"{middle} ({low} to {high})"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{round(seconds / 60)} min"


if __name__ == "__main__":
    main()
