"""The promised times are written where they are promised, and nowhere else."""

import difflib
import json
import shutil

import pytest

from benchmarks import promised


@pytest.fixture
def copy(tmp_path):
    """A copy of the files that promise times."""
    (tmp_path / "configs").mkdir()
    for name in promised.CONFIGS:
        shutil.copy(promised.ROOT / "configs" / f"{name}.py", tmp_path / "configs")
    for file in {file for places in promised.PLACES.values() for file in places}:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(promised.ROOT / file, tmp_path / file)
    return tmp_path


def test_every_place_is_found_and_nothing_else_changes(copy):
    seconds = {name: [60.0 + i, 90.0, 75.0] for i, name in enumerate(promised.CONFIGS)}
    changed = promised.write(copy, seconds)
    assert len(changed) == len(promised.CONFIGS) + 2
    for file in changed:
        before = (promised.ROOT / file.relative_to(copy)).read_text().splitlines()
        new = [
            line[2:]
            for line in difflib.ndiff(before, file.read_text().splitlines())
            if line.startswith("+ ")
        ]
        assert new
        assert all("1 min" in line for line in new), new
    assert promised.write(copy, seconds) == []


def test_the_heads_sentence(copy):
    promised.write(copy, {"digits": [20, 24, 21.4]})
    head = (copy / "configs" / "digits.py").read_text()
    assert "\nCost: 21 s (20 to 24 s) on " in head
    assert "Score (seed 0), test accuracy" in head
    compile(head, "digits.py", "exec")
    assert "It takes 21 s (20 to 24 s) on two CPU cores." in (copy / "README.md").read_text()


def test_a_place_that_is_gone_is_said_and_nothing_is_written(copy):
    (copy / "README.md").write_text("no promise")
    before = (copy / "configs" / "digits.py").read_text()
    with pytest.raises(ValueError, match=r"README.md has 0 places"):
        promised.write(copy, {"digits": [20, 24, 21]})
    assert (copy / "configs" / "digits.py").read_text() == before


def test_three_runs_per_config_on_an_idle_machine(copy, monkeypatch, capsys):
    (copy / "benchmarks").mkdir()
    monkeypatch.setattr(promised, "ROOT", copy)
    monkeypatch.setattr(promised, "job_seconds", lambda name: {"digits": 20.0}[name])
    monkeypatch.setattr(promised.os, "getloadavg", lambda: (2.0, 0, 0))
    with pytest.raises(SystemExit, match="not idle"):
        promised.main(["digits"])
    monkeypatch.setattr(promised.os, "getloadavg", lambda: (0.1, 0, 0))
    promised.main(["digits"])
    record = json.loads((copy / "benchmarks" / "promised.json").read_text())
    assert record["seconds"] == {"digits": [20.0, 20.0, 20.0]}
    assert "written: configs/digits.py" in capsys.readouterr().out
