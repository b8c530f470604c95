"""CSV that is safe to open in a spreadsheet: quoted where needed, every digit, no formulas.

A spreadsheet computes any cell of text that starts with = + - or @. Such text gets an apostrophe in
front, which tells spreadsheets that it is text; `unescape` removes it. Numbers are unchanged, also
negative ones.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Also the full-width forms, and a tab or a line break, after which some programs look again.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf(inity)?|nan)", re.ASCII | re.I)


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""A table as CSV.

    Args:
        columns: The columns' names.
        rows: Rows with one value per column; None is an empty cell.

    Returns:
        The text. Floats keep every digit, so equal numbers give equal bytes.

    Example:
        >>> to_csv(["a", "b"], [(-0.1, "=1+1"), (None, "x, y")])
        'a,b\n-0.1,\'=1+1\n,"x, y"\n'
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(map(_cell, columns))
    lines.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(float(value))
    return escape(value) if isinstance(value, str) else value


def escape(text: str) -> str:
    """Text that spreadsheets do not compute; `unescape` is the inverse.

    Example:
        >>> escape("=1+1"), escape("-1.5"), escape("path")
        ("'=1+1", '-1.5', 'path')
    """
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def unescape(cell: str) -> str:
    """The text that `escape` was given.

    Example:
        >>> unescape("'=1+1"), unescape("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell.lstrip("'")) else cell


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
