"""Rows that several short visits to a machine add up: kept after each one, never measured twice."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Record:
    """Rows and the state of pieces, in one JSON file that is whole at any moment.

    Args:
        file: The file; what is there is kept.
        before: Files of former visits, whose rows count as measured too.

    Raises:
        ValueError: A file holds something else.
    """

    def __init__(self, file: Path, before: Iterable[Path] = ()):
        self.file = file
        self.rows: dict[str, Row] = {}
        self.pieces: dict[str, Row] = {}
        for old in (*before, file):
            if not old.exists():
                continue
            try:
                kept = json.loads(old.read_text())
                self.rows |= kept["rows"]
                self.pieces |= kept["pieces"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{old} is no record of accelerator results; move it away"
                ) from error

    def keep(self, card: str, piece: str, row: Row) -> None:
        """Adds a row, which has a "name", in place of one of the same card, piece and name."""
        key = f"{card} | {piece} | {row['name']}"
        self.rows[key] = {"card": card, "piece": piece, **row}
        self._write()

    def close(self, card: str, piece: str, status: str, **about: Any) -> None:
        """Notes how a piece ended: "complete", "cut" by its time, or "failed"."""
        attempts = self.pieces.get(f"{card} | {piece}", {}).get("attempts", 0) + 1
        self.pieces[f"{card} | {piece}"] = {
            "card": card, "piece": piece, "status": status, "attempts": attempts, **about,
        }  # fmt: skip
        self._write()

    def names(self, card: str, piece: str) -> list[str]:
        """Names of the rows that a piece has on a card; a row that is an error doesn't count."""
        rows = self.rows.values()
        mine = [row for row in rows if (row["card"], row["piece"]) == (card, piece)]
        return [row["name"] for row in mine if "error" not in row]

    def status(self, card: str, piece: str) -> str:
        """How a piece ended on a card, or "" if it never ran there."""
        return self.pieces.get(f"{card} | {piece}", {}).get("status", "")

    def anywhere(self, piece: str) -> bool:
        """Whether a piece is complete on any card."""
        return any(p["piece"] == piece and p["status"] == "complete" for p in self.pieces.values())

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({"rows": self.rows, "pieces": self.pieces}, indent=1) + "\n")
        os.replace(new, self.file)
