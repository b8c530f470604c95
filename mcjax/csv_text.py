"""CSV that is safe to open in a spreadsheet, with all digits and without formulas.

Spreadsheets evaluate text that begins with = + - or @. Such text is prefixed with an apostrophe, which
spreadsheets read as "this is text"; `unescape` removes it. Numbers, including negative ones, are
unchanged.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Also full-width forms, and a tab or line end, after which some programs look for a formula again.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf(inity)?|nan)", re.ASCII | re.I)


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""A table as CSV.

    Args:
        columns: Column names.
        rows: One value per column; None is an empty cell.

    Returns:
        The text. Floats keep all digits, so equal values give equal bytes.

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
    """Text that spreadsheets do not evaluate; `unescape` is the inverse.

    Example:
        >>> escape("=1+1"), escape("-1.5"), escape("path")
        ("'=1+1", '-1.5', 'path')
    """
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def unescape(cell: str) -> str:
    """The inverse of `escape`.

    Example:
        >>> unescape("'=1+1"), unescape("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell.lstrip("'")) else cell


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
