"""The page is self-contained and well formed, and every number on it has a meaning."""

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from mcjax.experiments import result as results
from mcjax.report import chart, html, page
from mcjax.report.definitions import meaning
from mcjax.report.panels import Chart, Line, Panel
from mcjax.runs import records

VOID = {"meta", "link", "img", "br", "wbr", "hr"}


class Tags(HTMLParser):
    """Checks that tags close in order, and collects them with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.all = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def text(workdir):
    return (workdir / "report.html").read_text()


def test_tags_close_and_nothing_is_fetched(text):
    tags = Tags(text).all
    for _, attributes in tags:
        for name in ("src", "href", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "@import" not in text
    assert "url(" not in text
    assert len([tag for tag, _ in tags if tag == "script"]) == 2  # the chart's numbers, chart.js


def test_only_folders_with_tables_are_named(text, workdir):
    named = re.findall(r"<code>(\w+)/\*\.csv</code>", text)
    assert named == [f for f in ("figures", "paths") if any((workdir / f).rglob("*.csv"))]


def test_ids_are_there_once_and_every_link_has_its_place(text):
    tags = Tags(text).all
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for tag, a in tags if tag == "a"]
    assert links
    assert set(links) <= set(ids)


def test_pictures_have_words_and_tables_captions_and_scopes(text):
    tags = Tags(text).all
    pictures = [a for tag, a in tags if tag == "img"]
    assert len(pictures) == 1
    assert all(a["alt"] for a in pictures)
    drawings = [a for tag, a in tags if tag == "svg" and a.get("role") == "img"]
    assert len(drawings) == 2
    assert drawings[0]["aria-label"].startswith("cross-entropy (nats) against t: curve, 30 train")
    assert all("scope" in a for tag, a in tags if tag == "th")
    assert text.count("<table>") == text.count("<caption>") == text.count("<thead>")


def test_what_a_user_wrote_is_text(text):
    assert "&lt;digits&gt;" in text
    assert "<digits>" not in text
    assert "Is a &lt; b?" in text
    assert "<td>True</td>" in text  # fix_start is not a number


def gathered(**values):
    experiment = {"name": "x", "figures": [], "compared": [], "groups": [], **values}
    return html.render(
        "gathered.html",
        title="a",
        titles=[],
        counts="1 job",
        notes=[],
        experiments=[experiment],
        jobs=page.table(("x",), [(1,)]),
        definitions="",
    )


def test_titles_are_text_in_links_and_places_too():
    text = gathered(name='<img src="x">')
    assert "<img" not in text
    assert 'href="#-img-src-x-"' in text
    assert 'id="-img-src-x-"' in text


def test_equal_runs_make_equal_pages(workdir, tmp_path, text):
    assert gathered() == gathered()
    assert page.picture(workdir / "figures" / "plane.png", "c") in text.replace(
        page.CAPTIONS["plane"], "c"
    )


def test_a_page_without_charts_has_no_script():
    assert "<script" not in gathered()


def test_numbers_of_a_table():
    text = page.table(("name", "v"), [("a", 0.1234567), ("b", 1234567), ("c", 2.0), ("d", "")])
    found = re.findall(r'<td class="number">(.*?)</td>', text)
    assert found == ["0.12346", "1234567", "2"]
    mixed = page.table(("name", "v"), [("a", 0.5), ("b", "cnn"), ("c", None)])
    assert "number" not in mixed
    assert "<td>0.5</td>" in mixed
    assert str(2**53 + 1) in page.table(("name", "v"), [("a", 2**53 + 1)])
    for value in (float("nan"), float("inf")):
        assert str(value) in page.table(("name", "v"), [("a", value)])


def drawn(panel):
    text = chart.chart(Chart("c", [panel], "caption"))
    (data,) = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])
    return text, data


def test_the_numbers_of_a_chart_are_those_of_its_lines():
    y = np.array([0.5, np.nan, 1.23456789, np.inf])
    text, data = drawn(Panel(np.array([0.0, 1, 2, 3]), [Line("y", y)], "t", "nats", ylim=(0, 2)))
    assert data["x"] == [0, 1, 2, 3]
    assert data["y"] == [[0.5, None, 1.23457, None]]
    assert data["px"][0] == chart.LEFT
    assert data["px"][3] == chart.WIDE.right
    height = chart.BOTTOM - chart.TOP
    assert data["py"][0][0] == chart.BOTTOM - 0.25 * height
    assert data["py"][0][1] is None
    # Two pieces without a line between them.
    path = re.search(r'<g class="c0"><path class="line" d="(.*?)"', text)[1]
    assert path.count("M") == 2
    assert "L" not in path


def test_a_chart_of_sizes_has_ticks_at_the_sizes():
    x, y = np.array([50, 100, 200]), np.array([1.0, 2, 3])
    text, data = drawn(Panel(x, [Line("y", y, half=np.full(3, 0.5))], "bonafide", "%", log_x=True))
    assert re.findall(r'text-anchor="middle">(\d+)<', text) == ["50", "100", "200"]
    a, b, c = data["px"]
    assert b - a == pytest.approx(c - b, abs=0.2)
    assert text.count('class="bar"') == 3


def test_values_beyond_the_limits_stand_at_the_edge():
    panel = Panel(np.arange(2.0), [Line("y", np.array([-5.0, 5.0]))], "t", "%", ylim=(0, 1))
    assert drawn(panel)[1]["py"] == [[chart.BOTTOM, chart.TOP]]


@pytest.mark.parametrize("y", [np.full(3, np.nan), np.zeros(3), np.full(3, 1e-12)])
def test_charts_of_nothing_and_of_constants(y):
    Tags(drawn(Panel(np.arange(3.0), [Line("y", y)], "t", "nats"))[0])


def test_meanings_of_names():
    assert meaning("curve_test_loss_barrier").startswith("highest test loss on the curve")
    assert meaning("path_400_attack_success_rate") == meaning("attack_success_rate")
    assert meaning("clean_accuracy_interval").startswith("half-width")
    assert meaning("nobody's number") == ""


def test_a_metric_that_is_not_defined_is_null_in_result_json(tmp_path, monkeypatch):
    """For example, the correlation of a constant: JSON has no NaN, and reports treat NaN as damage."""
    monkeypatch.setattr(results, "describe", lambda _: {"num_images": {}})
    monkeypatch.setattr(results.page, "write_page", lambda *_, **__: None)
    run = SimpleNamespace(
        workdir=tmp_path,
        log=SimpleNamespace(close=lambda: None),
        config=SimpleNamespace(experiment="evasion"),
        config_hash="h",
        began=0.0,
        network=SimpleNamespace(has_batch_stats=False),
    )
    metrics = {"pearson": float("nan"), "barrier": float("inf"), "loss": 0.5, "n": 3}
    results.write_result(run, metrics, question="", answer=[], charts=[], tables={})
    found = records.read_result(tmp_path / "result.json")
    assert found.metrics == {"pearson": None, "barrier": None, "loss": 0.5, "n": 3}
