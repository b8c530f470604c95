"""The code of docs/pytorch.md runs as it stands, and shows what the page says."""

import re
from pathlib import Path

import pytest

from mcjax import cpu_convolution, models
from mcjax.core import named_options as spec
from mcjax.core.errors import UserError
from mcjax.interop import normalise

PAGE = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text()
MEASURED = r"(?:suspect|repaired): clean accuracy (\d\S*), attack success (\d\S*)"


@pytest.mark.slow
def test_the_pages_code_repairs_what_the_page_tampers_with(capsys):
    pytest.importorskip("torch")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    try:
        exec(compile(code, "docs/pytorch.md", "exec"), {"__name__": "example"})
    finally:
        cpu_convolution.disable()
    printed = capsys.readouterr().out
    assert "mcjax computes what PyTorch computes: True" in printed
    suspect, repaired = (tuple(map(float, pair)) for pair in re.findall(MEASURED, printed))
    assert suspect[0] > 0.93
    assert suspect[1] > 0.95
    assert repaired[0] > suspect[0] - 0.03
    assert repaired[1] < 0.4
    said = re.findall(MEASURED, PAGE)
    assert abs(float(said[1][1]) - repaired[1]) < 0.15, "the page's figures are not what it prints"


def test_every_architecture_that_the_page_names_is_one():
    table = PAGE[PAGE.index("| code |") : PAGE.index("Without `--arch`")]
    column = [line.split("|")[3] for line in table.splitlines() if line.startswith("|")][2:]
    names = re.findall(r"`([^`]+)`", " ".join(column))
    assert len(names) > 15
    for text in names:
        name, options = spec.parse(text)
        models.create(name, num_classes=10, **options)


@pytest.mark.parametrize("text", ["sepia", "0.5/0", "0.5,0.5/0.2", "0.5,/0.2", "1.2.3/1", ""])
def test_normalisations_that_are_none(text):
    with pytest.raises(UserError, match="normalisation"):
        normalise.parse(text)


def test_every_normalisation_that_the_page_names_is_known():
    assert all(f"`{name}`" in PAGE for name in normalise.KNOWN)
