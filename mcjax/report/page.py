"""report.html: one self-contained page per run, for screens of any width and for paper."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mcjax.core.files import write
from mcjax.report.chart import chart
from mcjax.report.definitions import TERMS, meaning, meanings
from mcjax.report.figures import DPI
from mcjax.report.html import render
from mcjax.report.panels import Chart, words
from mcjax.runs.workdir import read_config

CAPTIONS = {
    "plane": "Test loss on the plane through the two networks and the bend of the curve, in units of "
    "distance in weight space. Losses beyond the colour bar are drawn in its last colour.",
    "trigger": "Clean test images, the same images with the trigger, and the difference (grey: no change).",
    "adversarial": "Adversarial examples of one path, first seed: the clean image, and at some t the image "
    "after the attack on the network at t and what the attack changed (grey: no change; each row has its own "
    "scale). A frame marks images that the network at t misclassifies.",
    "transfer": "Accuracy of the network at t (across) on images made against the network at another t "
    "(up), one panel per path, first seed.",
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
        question: The question that the run answers.
        answer: What was found, in sentences; each is shown on its own line.
        charts: Figures of lines; every other PNG in figures/ is shown as it is.
        tables: Rows by title.
    """
    config = read_config(workdir)
    drawn = {one.name for one in charts}
    pictures = [p for p in sorted((workdir / "figures").glob("*.png")) if p.stem not in drawn]
    columns = [name for rows in tables.values() for row in rows for name in row]
    data = result["data"]
    sets = "Disjoint sets of images" if data["protocol"] == "disjoint" else "Sets of images"
    terms = [*TERMS.items(), *((k, v) for k, v in meanings(columns) if k not in TERMS)]
    write_document(
        workdir / "report.html",
        "run.html",
        title=f"{result['experiment']}: {data['name']}",
        question=question,
        answer=answer,
        figures=[
            *map(chart, charts),
            *(picture(path, CAPTIONS.get(path.stem, path.stem)) for path in pictures),
        ],
        csv_folders=[f for f in ("figures", "paths") if any((workdir / f).rglob("*.csv"))],
        tables=[table_of(rows, caption) for caption, rows in tables.items()],
        numbers=numbers(result["metrics"]),
        definitions=definitions(terms),
        data=data,
        data_sets=table(("set", "images"), data["num_images"].items(), caption=sets),
        batch_stats=result["batch_stats"],
        settings=table(
            ("field", "value"), config["hashed"].items(), caption="All that decides the result"
        ),
        config_hash=result["config_hash"],
        config=config,
        seconds=result["seconds"],
    )


def write_document(file: Path, template: str, /, *, title: str, **values: Any) -> None:
    """Writes a page.

    Args:
        file: The HTML file.
        template: A template that extends document.html.
        title: The page's title.
        **values: What the template shows: `question` and `answer`, and the content of its sections.
    """
    write(file, render(template, title=title, titles=[], **values) + "\n")


def picture(path: Path, caption: str) -> Markup:
    """A PNG inside the page, with its caption, so wide that its letters are as large as the page's."""
    data = path.read_bytes()
    return render(
        "picture.html",
        width=int.from_bytes(data[16:20]) * 96 // DPI,  # a PNG's first chunk starts with its width
        caption=caption,
        data=base64.b64encode(data).decode(),
    )


def numbers(
    metrics: Mapping[str, Any], *, caption: str = "The run's numbers (result.json)"
) -> Markup:
    """A table of named numbers, each with its meaning."""
    rows = ((words(name), value, meaning(name)) for name, value in metrics.items())
    return table(("quantity", "value", "meaning"), rows, caption=caption)


def definitions(terms: Iterable[tuple[str, str]]) -> Markup:
    """A table of words and their meanings."""
    terms = ((words(name), text) for name, text in terms)
    return table(("word", "meaning"), terms, caption="Words, and columns of the tables")


def table_of(rows: Rows, caption: str = "") -> Markup:
    """A table of rows given as dicts with the same names; columns without any value are left out."""
    names = [name for name in rows[0] if any(row.get(name, "") != "" for row in rows)]
    lines = ([_in_words(row.get(name, ""), name) for name in names] for row in rows)
    return table([words(name) for name in names], lines, caption=caption)


def _in_words(value: Any, column: str) -> Any:
    """A cell; the name of a method without its underscores."""
    return words(value) if column == "method" and isinstance(value, str) else value


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], *, caption: str = "") -> Markup:
    """A table that scrolls by itself if it is too wide; columns of numbers are aligned right.

    Args:
        head: Names of the columns.
        rows: Values; the first value of a row names the row. `Markup` is shown as it is.
        caption: What the table shows.
    """
    names, lines = list(head), [list(row) for row in rows]
    cells = [[_cell(value) for value in rest] for _, *rest in lines]
    numeric = [
        all(number or not text for text, number in column) for column in zip(*cells, strict=True)
    ]
    columns = zip(names, [False, *(numeric or [False] * len(names))], strict=False)
    shown = [
        (
            line[0],
            [(text, right and bool(text)) for (text, _), right in zip(row, numeric, strict=True)],
        )
        for line, row in zip(lines, cells, strict=True)
    ]
    return render("table.html", columns=list(columns), rows=shown, caption=caption)


def _cell(value: Any) -> tuple[str, bool]:
    """The text of a cell, and whether it is a number."""
    if isinstance(value, bool) or value is None:
        return str(value), False
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value if isinstance(value, str) else str(value), False
    except OverflowError:  # an integer too large for a float
        return str(value), True
    if isinstance(value, str | int):
        return str(value), True
    return (str(int(number)) if number.is_integer() else f"{number:.5g}"), True
