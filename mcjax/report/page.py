"""report.html: one self-contained page of a run, for screens of any width and for paper."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.report.chart import chart
from mcjax.report.definitions import TERMS, meaning, meanings
from mcjax.report.figures import DPI
from mcjax.report.panels import Chart
from mcjax.workdir import read_config, write

HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text()
SCRIPT = (HERE / "chart.js").read_text()

CAPTIONS = {
    "plane": "Test loss on the plane through the two networks and the bend of the curve, in units of "
    "distance in weight space. Losses beyond the colour bar are drawn in its last colour.",
    "trigger": "Clean test images, and the same with the trigger.",
    "transfer": "Accuracy of the network at t (across) on images that were made against the network at "
    "another t (up), a panel a path, first seed.",
}

Rows = Sequence[Mapping[str, Any]]


def write_page(
    workdir: Path,
    result: Mapping[str, Any],
    *,
    question: str,
    answer: Sequence[str],
    charts: Sequence[Chart],
    tables: Mapping[str, Rows],
) -> None:
    """Writes report.html of a run.

    Args:
        workdir: The run's directory, with config.json and figures/.
        result: The contents of result.json.
        question: What the run asks.
        answer: What came out, in sentences; each stands in a line of its own.
        charts: Figures of lines; every other PNG in figures/ is shown as it is.
        tables: Rows by title.
    """
    config = read_config(workdir)
    title = f"{result['experiment']}: {result['data']['name']}"
    drawn = {one.name for one in charts}
    pictures = [p for p in sorted((workdir / "figures").glob("*.png")) if p.stem not in drawn]
    columns = [name for rows in tables.values() for row in rows for name in row]
    data = result["data"]
    sections = {
        "Figures": [
            *map(chart, charts),
            *(picture(path, CAPTIONS.get(path.stem, path.stem)) for path in pictures),
            "<p>The same for papers: <code>figures/*.pdf</code>; the numbers: <code>path.csv</code>, "
            "<code>table.csv</code> and the tables in <code>figures</code> and <code>paths</code>.</p>",
        ],
        "Tables": [table_of(rows, caption) for caption, rows in tables.items()],
        "Numbers": [numbers(result["metrics"])],
        "What the words mean": [
            definitions([*TERMS.items(), *((k, v) for k, v in meanings(columns) if k not in TERMS)])
        ],
        "Data": [
            table(("set", "images"), data["num_images"].items(), caption="Disjoint sets of images")
            if data["protocol"] == "disjoint"
            else table(("set", "images"), data["num_images"].items(), caption="Sets of images"),
            f"<p>{html.escape(data['source'])}. Protocol: {html.escape(data['protocol'])}. "
            f"BatchNorm recomputed from: {html.escape(result['batch_stats'] or 'no BatchNorm')}.</p>",
        ],
        "Settings": [
            table(
                ("field", "value"), config["hashed"].items(), caption="All that decides the result"
            ),
            f"<p>Config {result['config_hash']}, revision {config['git_revision']}, "
            f"{config['num_devices']} x {html.escape(config['device_kind'])}, "
            f"{result['seconds']:.0f} s.</p>",
        ],
    }
    write(
        workdir / "report.html", document(title, [*head(title, question, answer), *parts(sections)])
    )


def head(title: str, question: str, answer: Iterable[str]) -> list[str]:
    """The first words of a page: its title, the question, and what came out."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in answer)
    return [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="question">{html.escape(question)}</p><ul class="answer">{items}</ul>',
    ]


def parts(sections: Mapping[str, Iterable[str]]) -> list[str]:
    """Sections under their titles, and before them a list of links to each."""
    names = {title: re.sub(r"[^\w]+", "-", title.lower()) for title in sections}
    links = "".join(
        f'<li><a href="#{name}">{html.escape(title)}</a></li>' for title, name in names.items()
    )
    return [
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        *(
            f'<section><h2 id="{names[title]}">{html.escape(title)}</h2>{"".join(body)}</section>'
            for title, body in sections.items()
        ),
    ]


def document(title: str, sections: Iterable[str]) -> str:
    """A self-contained page of the sections, in the common style."""
    body = "\n".join(sections)
    script = f"<script>{SCRIPT}</script>" if '<figure class="chart"' in body else ""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Else a browser asks the server for an icon.
            '<link rel="icon" href="data:,">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>",
            body,
            f"</main>{script}</body></html>\n",
        ]
    )


def picture(path: Path, caption: str) -> str:
    """A PNG inside the page, with its caption: letters as large as the page's own.

    Where the screen is narrower than the picture, it scrolls by itself.
    """
    data, caption = path.read_bytes(), html.escape(caption)
    width = int.from_bytes(data[16:20]) * 96 // DPI  # a PNG's first chunk begins with its width
    return (
        f'<figure><div class="scroll" tabindex="0"><img width="{width}" alt="{caption}" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode()}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def numbers(metrics: Mapping[str, Any], *, caption: str = "The run's numbers (result.json)") -> str:
    """A table of named numbers, each with its meaning."""
    rows = ((name, value, meaning(name)) for name, value in metrics.items())
    return table(("quantity", "value", "meaning"), rows, caption=caption)


def definitions(terms: Iterable[tuple[str, str]]) -> str:
    """A table of words and their meanings."""
    return table(("word", "meaning"), terms, caption="Words, and columns of the tables")


def table_of(rows: Rows, caption: str = "") -> str:
    """A table of rows that are dicts with the same names."""
    names = list(rows[0])
    return table(names, ([row.get(name, "") for name in names] for row in rows), caption=caption)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], *, caption: str = "") -> str:
    """A table that scrolls by itself where it is too wide; columns of numbers stand to the right.

    Args:
        head: Names of the columns.
        rows: Values; the first of a row names it.
        caption: What the table shows.
    """
    lines = [list(row) for row in rows]
    cells = [[_cell(value) for value in rest] for _, *rest in lines]
    right = [
        all(cell.startswith(NUMBER) or cell == EMPTY for cell in column)
        for column in zip(*cells, strict=True)
    ]
    cells = [
        [
            cell if numeric else cell.replace(NUMBER, "<td>", 1)
            for cell, numeric in zip(row, right, strict=True)
        ]
        for row in cells
    ]
    titles = "".join(
        f'<th scope="col"{" class=number" if numeric else ""}>{_words(name)}</th>'
        for name, numeric in zip(head, [False, *right], strict=False)
    )
    body = "".join(
        f'<tr><th scope="row">{_words(line[0])}</th>{"".join(row)}</tr>'
        for line, row in zip(lines, cells, strict=True)
    )
    words = html.escape(caption)
    named = f"<caption>{words}</caption>" if caption else ""
    region = f' role="region" aria-label="{words}"' if caption else ""
    return (
        f'<div class="scroll" tabindex="0"{region}><table>{named}<thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _words(name: Any) -> str:
    """Text that may be broken after an underscore or a dot, so that columns stay narrow."""
    return html.escape(str(name)).replace("_", "_<wbr>").replace(".", ".<wbr>")


NUMBER, EMPTY = '<td class="number">', "<td></td>"


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return f"<td>{value}</td>"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return f"<td>{html.escape(str(value))}</td>"
    if isinstance(value, int) or number.is_integer():
        return f"{NUMBER}{value if isinstance(value, int) else int(number)}</td>"
    return f"{NUMBER}{number:.5g}</td>"
