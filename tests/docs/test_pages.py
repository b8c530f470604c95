"""The code of pages without a test of their own runs as it stands, and prints what the page says."""

import re
from pathlib import Path

import pytest

from mcjax import data, models
from mcjax.attacks import triggers
from mcjax.experiments import methods

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"\d+\.\d+|\d+")


def code(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))


def said(page: Path) -> list[str]:
    """The lines of the page's printed block."""
    block = re.search(r"^It prints[^\n]*\n\n((?:    .*\n)+)", page.read_text(), re.M)[1]
    return [line.strip() for line in block.splitlines()]


def compare_printed(printed: str, page: Path, tolerance: float) -> None:
    """Every line of the page's block is printed, in its order, with numbers as near as that."""
    lines = iter(printed.splitlines())
    for line in said(page):
        words = NUMBER.sub("#", line)
        found = next((x for x in lines if NUMBER.sub("#", x) == words), None)
        assert found is not None, f"{line!r} is not printed"
        pairs = zip(NUMBER.findall(line), NUMBER.findall(found), strict=True)
        assert all(abs(float(a) - float(b)) <= tolerance for a, b in pairs), (line, found)


@pytest.mark.parametrize(("name", "tolerance"), [("index.md", 0.06), ("backdoor.md", 0.12)])
def test_a_pages_code_prints_what_the_page_says(name, tolerance, capsys):
    page = DOCS / name
    exec(compile(code(page), str(page), "exec"), {"__name__": "example"})
    compare_printed(capsys.readouterr().out, page, tolerance)


def test_the_page_on_adding_registers_one_of_each(monkeypatch, capsys):
    registries = (
        (data, "ORIGINALS", "bars"),
        (models, "FAMILIES", "shallow"),
        (triggers, "TRIGGERS", "stripe"),
        (methods, "METHODS", "shrink"),
    )
    for module, registry, _ in registries:  # copies, that the page's code adds to
        monkeypatch.setattr(module, registry, dict(getattr(module, registry)))
    page = DOCS / "adding.md"
    exec(compile(code(page), str(page), "exec"), {"__name__": "example"})
    compare_printed(capsys.readouterr().out, page, 0.12)
    for module, registry, name in registries:
        assert name in getattr(module, registry)
    monkeypatch.undo()
    for module, registry, name in registries:
        assert name not in getattr(module, registry)


# The kernel's own packages warn of their future; what the notebook runs is not touched by this.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_notebook_is_the_page_and_runs():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    jupytext = pytest.importorskip("jupytext")
    pytest.importorskip("ipykernel")
    page = DOCS / "tutorials" / "connect.md"
    notebook = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    written = [(c.cell_type, c.source) for c in jupytext.read(page).cells]
    again = "jupytext --to ipynb docs/tutorials/connect.md"
    assert [(c.cell_type, c.source) for c in notebook.cells] == written, f"run {again}"
    assert not any(c.get("outputs") for c in notebook.cells), "the notebook is kept without outputs"
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    compare_printed("".join(o.get("text", "") for o in outputs), page, 0.1)
    assert any("image/png" in o.get("data", {}) for o in outputs)
