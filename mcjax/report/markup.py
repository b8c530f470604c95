"""HTML that can't be broken by what it shows: whatever is not `Markup` is escaped when it is put in.

Functions that make a part of a page return `Markup`. They put it together by `Markup.format` and
`joined`, which escape every string that is not markup itself: names, settings and messages need no
thought, and nothing is escaped twice. `Markup(...)` is called on constants only, never on an f-string.
"""

import html
import json
import re
import string
from collections.abc import Iterable
from typing import Any


class Markup(str):
    """Text that is HTML already.

    Example:
        >>> Markup("<p>{}</p>").format("a < b")
        '<p>a &lt; b</p>'
        >>> Markup("<p>{}</p>").format(Markup("<b>bold</b>"))
        '<p><b>bold</b></p>'
        >>> Markup('<text y="{:.1f}"/>').format(0.25)
        '<text y="0.2"/>'
    """

    __slots__ = ()

    def format(self, *values: Any, **named: Any) -> "Markup":
        """The template with values for its braces; each is escaped unless it is `Markup`."""
        return Markup(_ESCAPING.vformat(self, values, named))


class _Escaping(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return escape(value if isinstance(value, Markup) else format(value, format_spec))


_ESCAPING = _Escaping()


def escape(value: Any) -> Markup:
    """A value as text of a page, or of an attribute in quotes; `Markup` stays as it is.

    Example:
        >>> escape('"a" & b')
        '&quot;a&quot; &amp; b'
    """
    if isinstance(value, Markup):
        return value
    return Markup(_NOT_ALLOWED.sub("\ufffd", html.escape(str(value))))


# HTML has no control characters but tab and line feed, and UTF-8 no half pairs of UTF-16.
_NOT_ALLOWED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def joined(parts: Iterable[Any], *, between: str = "") -> Markup:
    """Parts one after the other, `between` them markup; each is escaped unless it is `Markup`.

    Example:
        >>> joined(["a<b", Markup("<br>")])
        'a&lt;b<br>'
    """
    return Markup(between.join(map(escape, parts)))


def script_data(value: Any) -> Markup:
    r"""A value as JSON inside <script>, where neither </script> nor <!-- may stand.

    Example:
        >>> script_data({"name": "</script>"})
        '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, separators=(",", ":"))  # ASCII: U+2028 is escaped, too
    for c in "<>&":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return Markup(text)


def plain(text: str) -> str:
    r"""Text for Markdown, in one line: no tags, no links, no cells of a table.

    Example:
        >>> plain("<b> | [a](b)")
        '&lt;b&gt; \\| [a]\\(b)'
    """
    text = html.escape(" ".join(text.split()), quote=False)
    return text.replace("|", "\\|").replace("](", "]\\(")
