"""The code of pages without a test of their own runs as it stands, and prints what the page says."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcjax
from mcjax import data, models
from mcjax.attacks.poisoning import triggers
from mcjax.core.sharding import make_mesh
from mcjax.evaluation import path
from mcjax.models.network import from_apply
from mcjax.repair import methods

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"\d+\.\d+|\d+")


def code(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))


def said(page: Path) -> list[str]:
    """The lines of the page's printed blocks."""
    blocks = re.findall(r"^It prints[^\n]*\n\n((?:    .*\n)+)", page.read_text(), re.M)
    assert blocks, f"{page.name} does not say what it prints"
    return [line.strip() for block in blocks for line in block.splitlines()]


def compare_printed(printed: str, page: Path, tolerance: float) -> None:
    """Every line of the page's block is printed, in its order, with numbers as near as that."""
    lines = iter(printed.splitlines())
    for line in said(page):
        words = NUMBER.sub("#", line)
        found = next((x for x in lines if NUMBER.sub("#", x) == words), None)
        assert found is not None, f"{line!r} is not printed"
        pairs = zip(NUMBER.findall(line), NUMBER.findall(found), strict=True)
        assert all(abs(float(a) - float(b)) <= tolerance for a, b in pairs), (line, found)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("index.md", 0.06),
        pytest.param("backdoor.md", 0.12, marks=pytest.mark.slow),
        pytest.param("alignment.md", 0.12, marks=pytest.mark.slow),
    ],
)
def test_a_pages_code_prints_what_the_page_says(name, tolerance, capsys):
    page = DOCS / name
    exec(compile(code(page), str(page), "exec"), {"__name__": "example"})
    compare_printed(capsys.readouterr().out, page, tolerance)


def test_the_page_on_evasion_attacks_a_network(monkeypatch, capsys):
    """With one short attack instead of the whole ensemble, which takes long to compile."""
    quick = functools.partial(mcjax.autoattack, attacks=("apgd_ce",), num_steps=3)
    monkeypatch.setattr(mcjax, "autoattack", quick)
    w = jax.random.normal(jax.random.key(0), (4, 3))
    network = from_apply(lambda w, x: x.reshape(len(x), -1) @ w, num_classes=3)
    x = jax.random.uniform(jax.random.key(1), (8, 2, 2, 1))
    y = network.apply(w, x).argmax(1).at[:2].add(1) % 3
    page = DOCS / "evasion.md"
    members = jnp.stack([w, 2 * w, 3 * w])  # with the answers of one
    namespace = {"network": network, "variables": w, "members": members, "x": x, "y": y}
    exec(compile(code(page), str(page), "exec"), namespace)
    accuracy, robust, *rest = capsys.readouterr().out.split(maxsplit=2)
    assert float(accuracy) == 0.75
    assert float(robust) == namespace["found"].robust.mean() <= 0.75
    assert rest[0].startswith("{'apgd_ce': ")
    assert rest[0].endswith("} 0.0\n")
    assert namespace["ensemble_found"].accuracy == 0.75


@pytest.mark.slow
def test_the_evasion_tutorial_finds_the_barrier_that_it_speaks_of(monkeypatch, capsys):
    # One device, as the reader has: with eight on two cores method "exact" has been seen to hang.
    monkeypatch.setattr(path, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    page = DOCS / "tutorials" / "evasion.md"
    namespace = {"__name__": "example"}
    exec(compile(code(page), str(page), "exec"), namespace)
    namespace["plt"].close("all")
    compare_printed(capsys.readouterr().out, page, 0.5)  # eigenvalues are up to 5
    no_barrier, there_is_one = namespace["found"].values()
    for table in (no_barrier, there_is_one):
        assert table["accuracy"].mean(1).min() > 0.93  # clean images see nothing
        loss, eigenvalue = (table[k].mean(1) for k in ("robust_loss", "eigenvalue"))
        assert np.corrcoef(loss, eigenvalue)[0, 1] > 0.9
    error = 1 - no_barrier["robust_accuracy"].mean(1)
    assert error.max() - error[0] < 0.06
    error = 1 - there_is_one["robust_accuracy"].mean(1)
    assert error.max() - max(error[0], error[-1]) > 0.05
    apgd = namespace["apgd"]["robust_accuracy"]
    np.testing.assert_allclose(apgd, 1 - error[[0, 10, 20]], atol=0.04)
    # The quadratic model's terms add up to what the attack gains.
    rise = there_is_one["robust_loss"] - there_is_one["loss"]
    terms = sum(there_is_one[k] for k in ("gradient_term", "curvature_term", "error"))
    np.testing.assert_allclose(terms, rise, atol=1e-3)


@pytest.mark.slow(compiles=True)
def test_the_page_on_adding_registers_one_of_each(capsys):
    registries = (
        (data, "ORIGINALS", "bars"),
        (models, "FAMILIES", "shallow"),
        (triggers, "TRIGGERS", "stripe"),
        (methods, "METHODS", "shrink"),
        (methods, "METHODS", "blended"),
    )
    page = DOCS / "adding.md"
    try:
        exec(compile(code(page), str(page), "exec"), {"__name__": "example"})
        compare_printed(capsys.readouterr().out, page, 0.12)
        for module, registry, name in registries:
            assert name in getattr(module, registry)
    finally:
        for module, registry, name in registries:
            getattr(module, registry).pop(name, None)


TUTORIALS = [DOCS / "tutorials" / name for name in ("connect.md", "suspect.md")]
BY_NAME = pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)


def check_outputs(notebook, page):
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    compare_printed("".join(o.get("text", "") for o in outputs), page, 0.1)
    assert any("image/png" in o.get("data", {}) for o in outputs)


@BY_NAME
def test_the_notebook_is_the_page_with_its_outputs(page):
    nbformat = pytest.importorskip("nbformat")
    jupytext = pytest.importorskip("jupytext")
    notebook = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    written = [(c.cell_type, c.source) for c in jupytext.read(page).cells]
    again = f"jupytext --to ipynb docs/tutorials/{page.name}, then jupyter execute --inplace"
    assert [(c.cell_type, c.source) for c in notebook.cells] == written, f"run {again}"
    check_outputs(notebook, page)


@pytest.mark.slow
@BY_NAME
# The kernel's own packages warn of their future; what the notebook runs is not touched by this.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_notebook_runs(page, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if page.stem == "suspect":
        pytest.importorskip("torch")
    notebook = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    there = {"metadata": {"path": str(tmp_path)}}  # suspect.md writes files
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=there).execute()
    check_outputs(notebook, page)
