"""The code of docs/injection.md runs as it stands, and shows what the page says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "injection.md"


@pytest.mark.slow
def test_the_pages_code_changes_weights_and_repairs_as_the_page_says(capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S))
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    out = capsys.readouterr().out
    printed, said = (_measured(text) for text in (out, PAGE.read_text()))
    assert set(printed) == set(said) == {"l0", "l2", "bit flips"}
    for name, (success, kept, changed, clean) in printed.items():
        assert success == 1.0
        assert abs(kept - said[name][1]) < 0.05
        assert abs(changed - said[name][2]) < 0.2 * said[name][2] + 5
        assert abs(clean - said[name][3]) < 0.05
    assert printed["l0"][2] <= printed["l2"][2] / 10
    printed, said = (_repaired(text) for text in (out, PAGE.read_text()))
    assert printed.keys() == said.keys()
    assert len(said) == 5
    for name, (success, clean) in printed.items():
        assert abs(success - said[name][0]) <= 0.25  # one of the four images
        assert abs(clean - said[name][1]) < 0.05
    assert printed["path at t = 0.1"][1] > printed["suspect"][1]


def _measured(text: str) -> dict[str, list[float]]:
    line = r"(l0|l2|bit flips): (\S+) of the faults in, (\S+) of the others kept, (\d+) of \d+ weights changed, test accuracy (\S+)"
    return {name: [float(x) for x in numbers] for name, *numbers in re.findall(line, text)}


def _repaired(text: str) -> dict[str, list[float]]:
    line = r"^ *(suspect|second network|path at t = \S+|repaired)(?:, t = \S+)?: (\d\S*) of the faults in, test accuracy (\d\S+)"
    found = re.findall(line, text, re.M)
    return {name: [float(x) for x in numbers] for name, *numbers in found}
