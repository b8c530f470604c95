"""Text in Markdown files."""

import html


def plain(text: str) -> str:
    r"""Text for Markdown in one line, without tags, links, or the end of a table's cell.

    Example:
        >>> plain("<b> | [a](b)")
        '&lt;b&gt; \\| [a]\\(b)'
    """
    text = html.escape(" ".join(text.split()), quote=False)
    return text.replace("|", "\\|").replace("](", "]\\(")
