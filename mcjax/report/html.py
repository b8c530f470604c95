"""The pages' HTML: Jinja templates in templates/, which escape every value.

A template prints a value as text unless it is `Markup`, so names, settings and messages need no special
treatment. Functions that make a part of a page return `Markup`, made by `render`. `Markup(...)` itself is
called only on constants, never on an f-string.
"""

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"

# HTML allows no control characters except tab and line feed; UTF-8 no lone surrogates.
_NOT_ALLOWED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def render(template: str, **values: Any) -> Markup:
    """Renders a template.

    Args:
        template: Its file in templates/.
        values: What it shows; all that is not `Markup` is escaped.

    Example:
        >>> render("link.html", url="a.html", text="a < b")
        Markup('<a href="a.html">a &lt; b</a>')
    """
    return Markup(_ENVIRONMENT.get_template(template).render(values))


def allowed(value: Any) -> Any:
    """A value without the characters that HTML does not allow."""
    if isinstance(value, Markup):
        return value
    return _NOT_ALLOWED.sub("\ufffd", str(value))


def _breakable(text: Any) -> list[str]:
    """Pieces of a text, which may be broken after an underscore or a dot that is no decimal point."""
    return [text] if isinstance(text, Markup) else re.split(r"(?<=_)|(?<=\.)(?!\d)", str(text))


def _anchor(title: str) -> str:
    """A section's title as the name of its place on the page."""
    return re.sub(r"[^\w]+", "-", title.lower())


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    finalize=allowed,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)
_ENVIRONMENT.filters |= {
    "anchor": _anchor,
    "breakable": _breakable,
    "fixed": lambda value: f"{value:.1f}",  # pixels
    "short": lambda value: f"{value:.4g}",
}
_ENVIRONMENT.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
_ENVIRONMENT.globals |= {
    "style": Markup((HERE / "page.css").read_text()),
    "script": Markup((HERE / "chart.js").read_text()),
}
