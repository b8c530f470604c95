"""Runs the pieces of `plan`, in order of value, as long as the budget lasts.

    python -m benchmarks.accelerator --out DIR [--only NAME ...] [--budget SECONDS] [--tiny]

Each piece has a process and a time limit of its own; DIR/accelerator.json is whole after every row, and what it
(or benchmarks/accelerator.json, of former visits) has for this card is not measured again. At the end
DIR/accelerator.md has the tables, the last of which is printed. It needs no network.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from benchmarks.accelerator import table
from benchmarks.accelerator.plan import Piece, pieces
from benchmarks.accelerator.record import Record, Row

BEFORE = Path(__file__).parents[1] / "accelerator.json"
LEAST_SECONDS = 20  # below this no piece is started: importing JAX alone takes half of it
ATTEMPTS = 2  # after so many failures on a card, only --only runs a piece again


def main() -> None:
    """Plans, runs, writes."""
    names = [piece.name for piece in pieces()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help=f"pieces: {', '.join(names)}", default=[])
    parser.add_argument("--budget", type=float, default=480, help="seconds in all; 480")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the script")
    options = parser.parse_args()
    chosen = pieces(options.tiny)
    unknown = sorted(set(options.only) - {piece.name for piece in chosen})
    if unknown:
        parser.error(
            f"unknown piece {unknown[0]}; there are {', '.join(piece.name for piece in chosen)}"
        )
    if options.budget <= 0:
        parser.error(f"--budget is {options.budget:g}; give seconds, 480 say")
    began = time.monotonic()
    # Whoever ends this process ends its pieces too, which run in sessions of their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        # A tiny run must not mix with real results.
        record = Record(options.out / "accelerator.json", [] if options.tiny else [BEFORE])
        options.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(f"--out can't be used: {error}")
    with (options.out / "log.txt").open("a") as log:
        try:
            card = card_of(log)
        except RuntimeError as error:
            parser.error(f"{error}; see {options.out / 'log.txt'}")
        if not options.tiny and card == "cpu":
            parser.error("there is no accelerator here (JAX found the CPU only); try --tiny")
        for piece in order(chosen, record, card, options.only):
            left = options.budget - (time.monotonic() - began)
            if left < LEAST_SECONDS:
                say(f"{piece.name} and what follows: no time left")
                break
            limit = left if options.tiny else min(piece.seconds, left)  # a test's machine is busy
            run(piece, record, card, log, seconds=limit, tiny=options.tiny)
    text = table.page(record, tiny=options.tiny)
    (options.out / "accelerator.md").write_text(text)
    print(table.summary(record, card, tiny=options.tiny))


def order(chosen: list[Piece], record: Record, card: str, only: list[str]) -> list[Piece]:
    """What to run: what no card has yet, then what this card lacks; with `only`, just those.

    Args:
        chosen: All pieces.
        record: What is measured.
        card: This card.
        only: Names asked for, which run even if they failed before.

    Returns:
        The pieces to run, in order.
    """
    if only:
        chosen = [piece for piece in chosen if piece.name in only]
    missing = [p for p in chosen if record.status(card, p.name) != "complete"]
    if not only:
        missing = [p for p in missing if not _hopeless(record, card, p.name)]
    return sorted(missing, key=lambda piece: record.anywhere(piece.name))


def _hopeless(record: Record, card: str, name: str) -> bool:
    piece = record.pieces.get(f"{card} | {name}", {})
    return piece.get("status") == "failed" and piece.get("attempts", 0) >= ATTEMPTS


def card_of(log: TextIO) -> str:
    """The accelerator's name, asked in another process so that this one holds no device memory.

    Raises:
        RuntimeError: JAX finds no device.
    """
    code = "import jax; d = jax.devices()[0]; print(d.platform if d.platform == 'cpu' else d.device_kind)"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=log, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError("JAX found no device within 120 s") from None
    if answer.returncode:
        raise RuntimeError("JAX finds no device")
    return answer.stdout.strip().splitlines()[-1]


def run(
    piece: Piece,
    record: Record,
    card: str,
    log: TextIO,
    *,
    seconds: float,
    tiny: bool,
) -> None:
    """Runs a piece in a process of its own and keeps its rows as they come.

    Args:
        piece: The piece.
        record: Where rows go.
        card: This card.
        log: A file for what the process says.
        seconds: After how long the process, and all that it started, is ended.
        tiny: The smallest sizes.
    """
    say(f"{piece.name}: {piece.what}, at most {seconds:.0f} s")
    asked = json.dumps({"name": piece.name, "done": record.names(card, piece.name), "tiny": tiny})
    command = [sys.executable, "-m", "benchmarks.accelerator.one", asked]
    # JAX would take three quarters of the memory, and PyTorch has to fit beside it.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    began = time.monotonic()
    # A session of its own, so that its end is the end of the processes that it started, too.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    cut = threading.Event()

    def cut_off() -> None:
        cut.set()
        end(process)

    timer = threading.Timer(seconds, cut_off)
    timer.start()
    last: list[str] = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            row = row_of(line)
            if row is None:
                log.write(line)
                last = [line.strip() or "nothing"]
                continue
            record.keep(card, piece.name, row)
            say(f"  {row['name']}: {row.get('error') or table.short(row)}")
        process.wait()
    finally:
        timer.cancel()
        end(process)  # and what it has left running
        process.wait()
        process.stdout.close()
    took = round(time.monotonic() - began, 1)
    if cut.is_set():
        record.close(card, piece.name, "cut", seconds=took)
        say(f"{piece.name}: ended after its {took} s; what it found is kept")
    elif process.returncode:
        why = "; ".join(last) or f"exit code {process.returncode}"
        record.close(card, piece.name, "failed", seconds=took, why=why)
        say(f"{piece.name}: failed ({why}); see log.txt")
    else:
        record.close(card, piece.name, "complete", seconds=took)


def end(process: subprocess.Popen) -> None:
    """Ends a process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def row_of(line: str) -> Row | None:
    """The row in a line of a piece's output, or None where a library spoke."""
    if not line.startswith("ROW "):
        return None
    row: Row = json.loads(line.removeprefix("ROW "))
    return row


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
