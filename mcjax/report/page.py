"""report.html: one self-contained page of a run, for screens of any width and for paper."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.core.files import write
from mcjax.report.chart import chart
from mcjax.report.definitions import TERMS, meaning, meanings
from mcjax.report.figures import DPI
from mcjax.report.markup import Markup, joined
from mcjax.report.panels import Chart
from mcjax.runs.workdir import read_config

HERE = Path(__file__).parent
STYLE = Markup((HERE / "page.css").read_text())
SCRIPT = Markup("<script>{}</script>").format(Markup((HERE / "chart.js").read_text()))

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
            Markup(
                "<p>The same for papers: <code>figures/*.pdf</code>; the numbers: <code>path.csv</code>, "
                "<code>table.csv</code> and the tables in <code>figures</code> and <code>paths</code>.</p>"
            ),
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
            Markup("<p>{}. Protocol: {}. BatchNorm recomputed from: {}.</p>").format(
                data["source"], data["protocol"], result["batch_stats"] or "no BatchNorm"
            ),
        ],
        "Settings": [
            table(
                ("field", "value"), config["hashed"].items(), caption="All that decides the result"
            ),
            Markup("<p>Config {}, revision {}, {} x {}, {:.0f} s.</p>").format(
                result["config_hash"],
                config["git_revision"],
                config["num_devices"],
                config["device_kind"],
                result["seconds"],
            ),
        ],
    }
    write(
        workdir / "report.html", document(title, [*head(title, question, answer), *parts(sections)])
    )


def head(title: str, question: str, answer: Iterable[str]) -> list[Markup]:
    """The first words of a page: its title, the question, and what came out."""
    items = joined(Markup("<li>{}</li>").format(line) for line in answer)
    return [
        Markup("<h1>{}</h1>").format(title),
        Markup('<p class="question">{}</p><ul class="answer">{}</ul>').format(question, items),
    ]


def parts(sections: Mapping[str, Iterable[Markup]]) -> list[Markup]:
    """Sections under their titles, and before them a list of links to each."""
    names = {title: re.sub(r"[^\w]+", "-", title.lower()) for title in sections}
    links = joined(
        Markup('<li><a href="#{}">{}</a></li>').format(name, title) for title, name in names.items()
    )
    return [
        Markup('<nav aria-label="Sections"><ul>{}</ul></nav>').format(links),
        *(
            Markup('<section><h2 id="{}">{}</h2>{}</section>').format(
                names[title], title, joined(body)
            )
            for title, body in sections.items()
        ),
    ]


def document(title: str, sections: Iterable[Markup]) -> Markup:
    """A self-contained page of the sections, in the common style."""
    body = joined(sections, between="\n")
    has_chart = '<figure class="chart"' in body
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Else a browser asks the server for an icon.
        '<link rel="icon" href="data:,">\n'
        "<title>{}</title><style>{}</style></head><body><main>\n{}\n</main>{}</body></html>\n"
    ).format(title, STYLE, body, SCRIPT if has_chart else "")


def picture(path: Path, caption: str) -> Markup:
    """A PNG inside the page, with its caption: letters as large as the page's own.

    Where the screen is narrower than the picture, it scrolls by itself.
    """
    data = path.read_bytes()
    return Markup(
        '<figure><div class="scroll" tabindex="0"><img width="{width}" alt="{caption}" '
        'src="data:image/png;base64,{data}"></div><figcaption>{caption}</figcaption></figure>'
    ).format(
        width=int.from_bytes(data[16:20]) * 96 // DPI,  # a PNG's first chunk begins with its width
        caption=caption,
        data=base64.b64encode(data).decode(),
    )


def numbers(
    metrics: Mapping[str, Any], *, caption: str = "The run's numbers (result.json)"
) -> Markup:
    """A table of named numbers, each with its meaning."""
    rows = ((name, value, meaning(name)) for name, value in metrics.items())
    return table(("quantity", "value", "meaning"), rows, caption=caption)


def definitions(terms: Iterable[tuple[str, str]]) -> Markup:
    """A table of words and their meanings."""
    return table(("word", "meaning"), terms, caption="Words, and columns of the tables")


def table_of(rows: Rows, caption: str = "") -> Markup:
    """A table of rows that are dicts with the same names."""
    names = list(rows[0])
    return table(names, ([row.get(name, "") for name in names] for row in rows), caption=caption)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], *, caption: str = "") -> Markup:
    """A table that scrolls by itself where it is too wide; columns of numbers stand to the right.

    Args:
        head: Names of the columns.
        rows: Values; the first of a row names it. `Markup` is shown as it is.
        caption: What the table shows.
    """
    names, lines = list(head), [list(row) for row in rows]
    cells = [[_cell(value) for value in rest] for _, *rest in lines]
    right = [all(numeric or not text for text, numeric in c) for c in zip(*cells, strict=True)]
    titles = joined(
        Markup('<th scope="col"{}>{}</th>').format(_CLASS[numeric], _words(name))
        for name, numeric in zip(names, [False, *(right or [False] * len(names))], strict=False)
    )
    body = joined(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            _words(line[0]),
            joined(
                Markup("<td{}>{}</td>").format(_CLASS[numeric and bool(text)], text)
                for (text, _), numeric in zip(row, right, strict=True)
            ),
        )
        for line, row in zip(lines, cells, strict=True)
    )
    named = Markup("<caption>{}</caption>").format(caption) if caption else ""
    region = Markup(' role="region" aria-label="{}"').format(caption) if caption else ""
    return Markup(
        '<div class="scroll" tabindex="0"{}><table>{}<thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(region, named, titles, body)


_CLASS = {False: Markup(""), True: Markup(' class="number"')}


def _words(name: Any) -> Markup:
    """Text that may be broken after an underscore or a dot, so that columns stay narrow."""
    if isinstance(name, Markup):
        return name
    return joined(re.split(r"(?<=[_.])", str(name)), between="<wbr>")


def _cell(value: Any) -> tuple[str, bool]:
    """What a cell shows, and whether it is a number."""
    if isinstance(value, bool) or value is None:
        return str(value), False
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value if isinstance(value, str) else str(value), False
    except OverflowError:  # a whole number beyond every float
        return str(value), True
    if isinstance(value, str | int):
        return str(value), True
    return (str(int(number)) if number.is_integer() else f"{number:.5g}"), True
