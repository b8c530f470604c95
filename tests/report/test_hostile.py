"""Names that are markup, formulas, mathematics or not printable: pages, tables and figures show them."""

import csv
import json
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import jinja2
import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import COLUMNS, CONFIG, FIELDS, RESULT, repaired
from markupsafe import Markup
from slow import all_but

from mcjax.cli import evaluate
from mcjax.cli.report import gather
from mcjax.experiments import connect
from mcjax.report import chart, html, page, repaired_page
from mcjax.report.figures import chart_figure, label
from mcjax.report.panels import Chart, Line, Panel
from mcjax.report.repaired_page import write_repaired
from mcjax.runs import config as base
from mcjax.runs import csv_text
from mcjax.runs.records import read_table
from mcjax.runs.workdir import write_csv
from mcjax.sweeps.gathered import figures as gathered_figures

HARMLESS = "a word"
HOSTILE = {
    "element": "<script>alert(1)</script>",
    "attributes": "\" onload='alert(1)' x=\"&lt;",
    "comment": "</title></script></style><!-- --><img src=x onerror=alert(1)>",
    "formula": "=cmd|' /C calc'!A0",
    "mathematics": r"$\frac{1}{$ {braces} {0} %s \n",
    "lines": "\r\n\t\x00\x1b[31m\u2028 \ufffe| [a](javascript:b) ",
    "scripts": "\u202e模型 🦀 ａ é",
}


class Skeleton(HTMLParser):
    """The tags of a page, the names of their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.words += [value for _, value in attrs if value]

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}",))

    def handle_data(self, data):
        self.words.append(data)

    def handle_comment(self, data):
        self.tags.append(("comment", data))


def fields(name):
    return {**FIELDS, "data.name": name, "attack.trigger": name, name: 1}


def leave_run(folder, name, seed=0):
    folder.mkdir(parents=True)
    config = {"hash": f"h{seed}", "hashed": {**fields(name), "seed": seed, "x": name * (1 + seed)}}
    where = {"git_revision": name, "device_kind": name, "num_devices": 1}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config, **where}))
    result = {**RESULT, "config_hash": f"h{seed}", "metrics": {name: 0.5}}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "report.html").write_text("a report")
    rows = [(method, size, seed, 0.5, 0.9, 0.1) for method, size in (("suspect", 0), ("path", 50))]
    rows.append((name, 50, seed, 0.5, 0.8, 0.2))
    write_csv(folder / "table.csv", COLUMNS, [dict(zip(COLUMNS, r, strict=True)) for r in rows])


def index(folder, name):
    """index.html of two settings; one job failed with a hostile last line."""
    for seed in range(2):
        leave_run(folder / f"a{name.replace('/', '')}{seed}".replace("\0", ""), name, seed)
    late = folder / "late"
    leave_run(late, name, 2)
    (late / "result.json").unlink()
    (late / "log.txt").write_text(name)
    gather([folder], folder / "out")
    return (folder / "out" / "index.html").read_text()


def report(folder, name):
    """report.html of a run whose every string is hostile."""
    leave_run(folder / "run", name)
    result = {
        "experiment": name,
        "data": {"name": name, "source": name, "protocol": name, "num_images": {name: 3}},
        "batch_stats": name,
        "config_hash": name,
        "seconds": 1.5,
        "metrics": {name: 0.5, "text": name},
    }
    charts = [Chart("path", panels(name), name, title=name)]
    tables = {name: [{"method": name, name: name}]}
    (folder / "run" / "figures").mkdir()
    page.write_page(
        folder / "run", result, question=name, answer=[name], charts=charts, tables=tables
    )
    return (folder / "run" / "report.html").read_text()


def panels(name):
    y = np.array([0.5, 1.0])
    lines = [Line(name, y, half=y, mark="o"), Line(f"_{name}", y, dotted=True, band=(y, y + 1))]
    return [Panel(np.arange(2.0), lines, name, name, title=name, chosen=0.5)]


def repair(folder, name):
    """report.html of python -m mcjax.repair with hostile settings."""
    write_repaired(folder, repaired(0.5), {"arch": name, name: name})
    return (folder / "report.html").read_text()


def evaluation(folder, name):
    """report.html of python -m mcjax.evaluate, without a network."""
    config = base.connect()
    config.data.name = name
    (folder / "config.json").write_text(json.dumps({"config": json.loads(config.to_json())}))
    columns = {f"{a}_{b}": np.ones(3) for a in ("train", "test") for b in ("loss", "accuracy")}
    with pytest.MonkeyPatch.context() as patch:
        run = SimpleNamespace(
            workdir=folder,
            config=SimpleNamespace(data=SimpleNamespace(name=name)),
            config_hash=name,
            evaluated=None,
            num_evaluated={"train": 1, "test": 1},
            splits=SimpleNamespace(test={"label": np.zeros(1, np.int32)}),
        )
        patch.setattr(evaluate, "validate", lambda _: None)  # it refuses line breaks in names
        patch.setattr(evaluate, "open_run", lambda *_: run)
        patch.setattr(connect, "trained", lambda _: (None,) * 4)
        patch.setattr(connect, "with_stats", lambda *_: None)
        patch.setattr(connect, "path_stage", lambda *_: columns)
        patch.setattr(connect, "summary", lambda *_: {name: 1.0})
        patch.setattr(connect, "answer", lambda _, guessing: [name])
        patch.setattr(evaluate, "chart_figure", lambda *_: None)
        return (evaluate.evaluate(folder, 3) / "report.html").read_text()


@pytest.mark.parametrize(
    "write", all_but([index, report, evaluation], [index, report, repair, evaluation])
)
def test_names_are_text_on_every_page(write, tmp_path, monkeypatch):
    """A page with hostile names has the same tags and attributes as one with harmless names."""
    for module in (gathered_figures, repaired_page):  # figures have their own tests
        monkeypatch.setattr(module, "chart_figure", lambda *_: None)
    breaks = " _ ."  # places where a line may break, the same number in each name
    (tmp_path / "harmless").mkdir()
    expected = Skeleton(write(tmp_path / "harmless", HARMLESS + breaks))
    for kind, hostile in HOSTILE.items():
        hostile = hostile.replace("_", "-").replace(".", "-")
        (tmp_path / kind).mkdir()
        text = write(tmp_path / kind, hostile + breaks)
        found = Skeleton(text)
        assert found.tags == expected.tags, kind
        if kind in ("element", "attributes", "comment", "formula"):
            assert hostile in "".join(found.words), "the text is there, once escaped"
        assert "&amp;lt;script" not in text
        for data in text.split('<script type="application/json">')[1:]:
            assert json.loads(data.split("</script>")[0])


def test_spreadsheets_compute_nothing(tmp_path):
    name = HOSTILE["formula"]
    index(tmp_path, name)
    for file in ("jobs.csv", "rows.csv", "means.csv"):
        with (tmp_path / "out" / file).open(newline="") as text:
            cells = [cell for row in csv.reader(text) for cell in row]
        assert f"'{name}" in cells
        for cell in cells:
            assert not cell.startswith(tuple("=+-@\t\r")) or float(cell) < 0
    typed = pyarrow.parquet.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    assert {row["method"] for row in typed} == {"suspect", "path", name}  # no apostrophe


def test_a_table_is_read_as_it_was_written(tmp_path):
    """Commas, quotes, line breaks and formulas in text; numbers with every digit, negative ones unescaped."""
    texts = [*HOSTILE.values(), "a,b", 'say "no"', "'", "'=1", "-", "-1", "+1e5", "@x", " =1"]
    rows = [{"path": text, "seed": i, "x": -0.1 * i} for i, text in enumerate(texts)]
    write_csv(tmp_path / "table.csv", ("path", "seed", "x"), rows)
    assert read_table(tmp_path / "table.csv", "evasion") == rows
    write_csv(
        tmp_path / "plain.csv", ("t", "a b"), [{"t": -1 / 3, "a b": 3}, {"t": "", "a b": "x y"}]
    )
    assert (tmp_path / "plain.csv").read_text() == "t,a b\n-0.3333333333333333,3\n,x y\n"


@given(st.text())
def test_any_text_stays_text(text):
    assert csv_text.unescape(csv_text.escape(text)) == text
    assert Skeleton(html.render("link.html", url=text, text=text)).tags == [("a", "href"), ("/a",)]
    drawn = chart.chart(Chart("c", panels(text), text))
    (data,) = re.findall('<script type="application/json">(.*?)</script>', drawn)
    assert json.loads(data)[0]["name"] == text
    assert not set(data) & set("<>&\u2028\u2029")
    drawn.encode()  # no lone surrogates


def test_what_is_markup_is_not_escaped_again():
    bold = Markup("<b>{}</b>").format("a & b")
    assert html.render("link.html", url="", text=bold) == '<a href=""><b>a &amp; b</b></a>'
    assert page.table(("a", "b"), [("<", bold)]).count("<b>a &amp; b</b>") == 1


def test_every_template_escapes_and_needs_all_its_values():
    """No template marks a value as safe, and a misspelt name is an error, not an empty text."""
    for file in html.TEMPLATES.iterdir():
        text = file.read_text()
        assert "safe" not in text, file
        assert "autoescape" not in text, file
    with pytest.raises(jinja2.UndefinedError, match="'text' is undefined"):
        html.render("link.html", url="")


def test_no_markup_is_made_of_a_filled_in_string():
    """Markup(...) is called on constants only; values inserted later are escaped."""
    for file in [*html.HERE.rglob("*.py"), html.HERE.parent / "evaluate.py"]:
        text = "".join(file.read_text().split())
        assert 'Markup(f"' not in text, file
        assert "Markup(f'" not in text, file


@pytest.mark.parametrize("kind", all_but(["formula"], HOSTILE))
def test_figures_of_any_name(kind, tmp_path):
    """Mathematics, letters that the font lacks, and long names do not stop a figure."""
    name = HOSTILE[kind]
    for i, text in enumerate((name, name * 200)):
        chart_figure(tmp_path, Chart(f"c{i}", panels(text), text, title=text))
        assert (tmp_path / f"c{i}.png").stat().st_size > 1000
        assert chart.chart(Chart(f"c{i}", panels(text), text, title=text))


def test_labels_are_short_lines():
    assert label("a\n b\0c") == "a b c"
    assert label("_a") == " _a"  # legends skip labels that start with _
    assert label("") == ""
    lines = label("x" * 10_000).splitlines()
    assert len(lines) <= 3
    assert max(map(len, lines)) <= 100


def test_a_folder_of_any_bytes(tmp_path):
    """File names on Linux are bytes; these are not UTF-8, and are markup and a formula."""
    for i, name in enumerate((b"=\xff<b>", b"a\nb")):
        folder = os.path.join(os.fsencode(tmp_path), name)
        try:
            os.mkdir(folder)
        except OSError:
            pytest.skip("this file system takes names of UTF-8 only")
        leave_run(tmp_path / os.fsdecode(name) / "run", "x", i)
    folders = [tmp_path / os.fsdecode(name) for name in (b"=\xff<b>", b"a\nb")]
    gather(folders, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert r"=\udcff&lt;b&gt;, a\nb" in text
    assert 'href="../%3D%FF%3Cb%3E/run/report.html"' in text
