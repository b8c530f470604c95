"""A table as Markdown."""

from collections.abc import Sequence


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that hold no line breaks and no bars.

    Args:
        head: The names of the columns.
        lines: The rows.

    Returns:
        The table, without a line break at its end.

    Example:
        >>> print(markdown_table(["method", "score"], [["d3", "0.9"]]))
        | method | score |
        |---|---|
        | d3 | 0.9 |
    """
    rows = ["| " + " | ".join(line) + " |" for line in [head, *lines]]
    return "\n".join([rows[0], "|" + "---|" * len(head), *rows[1:]])
