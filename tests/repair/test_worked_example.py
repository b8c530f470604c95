"""The code of docs/repair.md runs as it stands, and shows what the page says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "repair.md"


@pytest.mark.slow
def test_the_pages_code_repairs_what_the_page_tampers_with(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    (suspect, repaired), t = _measured(printed), float(re.search(r"t = (\S+),", printed)[1])
    assert suspect[0] > 0.93
    assert suspect[1] > 0.95
    # Of 500 images; other numbers of threads round differently and move it by 0.01.
    assert repaired[0] > suspect[0] - 0.05
    assert repaired[1] < 0.1
    assert re.search(r"most suspicious: class 1, .*, anomaly (?:[3-9]|\d\d)", printed)
    assert 0.1 < t <= 1
    said = _measured(PAGE.read_text())
    assert abs(said[1][1] - repaired[1]) < 0.1, "the page's figures are not what its code prints"


def _measured(text: str) -> list[tuple[float, float]]:
    lines = re.findall(
        r"(?:suspect|repaired): clean accuracy (\d\S*), attack success (\d\S*)", text
    )
    return [(float(clean), float(attack)) for clean, attack in lines]
