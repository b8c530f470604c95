"""The process of one piece: prints its rows as they are found, `ROW {json}` a line."""

import functools
import json
import os
import sys
from typing import Any

from benchmarks.accelerator.plan import pieces
from benchmarks.pieces import machine


@functools.cache
def here() -> dict[str, Any]:
    """The machine; asked after the first row, for it takes memory on the device."""
    return machine()


def main(asked: str) -> None:
    """Runs a piece.

    Args:
        asked: JSON of its name, the names of rows that it need not find again, and whether tiny.
    """
    request = json.loads(asked)
    (piece,) = [p for p in pieces(request["tiny"]) if p.name == request["name"]]
    # What libraries print must not stand between the rows.
    rows = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for row in piece.rows(piece.argument, set(request["done"]), request["tiny"]):
        print("ROW " + json.dumps({**row, **here()}), file=rows, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
