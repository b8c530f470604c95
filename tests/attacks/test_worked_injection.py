"""The code of docs/injection.md runs as it stands, and shows what the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "injection.md"


def test_the_pages_code_changes_weights_as_the_page_says(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    printed, said = (_measured(text) for text in (capsys.readouterr().out, PAGE.read_text()))
    assert set(printed) == set(said) == {"l0", "l2", "bit flips"}
    for name, (success, kept, changed, clean) in printed.items():
        assert success == 1.0
        assert abs(kept - said[name][1]) < 0.05
        assert abs(changed - said[name][2]) < 0.2 * said[name][2]
        assert abs(clean - said[name][3]) < 0.05
    assert printed["l0"][2] <= printed["l2"][2] / 10


def _measured(text: str) -> dict[str, list[float]]:
    line = r"(l0|l2|bit flips): (\S+) of the faults in, (\S+) of the others kept, (\d+) of \d+ weights changed, test accuracy (\S+)"
    return {name: [float(x) for x in numbers] for name, *numbers in re.findall(line, text)}
