"""metrics.jsonl after a kill, and lines of progress."""

import json

import pytest

from mcjax.core.errors import UserError
from mcjax.runs import logs


def test_rewind_drops_what_is_written_again(tmp_path):
    log = logs.MetricLog(tmp_path / "metrics.jsonl")
    for stage, step in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
        log.append(stage=stage, step=step)
    with log.path.open("a") as file:
        file.write('{"stage": "b", "st')  # cut by a kill
    log.rewind("b", 1)
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert rows == [
        {"stage": "a", "step": 1},
        {"stage": "a", "step": 2},
        {"stage": "b", "step": 1},
    ]


def test_log_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="can't write"):
        logs.MetricLog(tmp_path / "missing" / "metrics.jsonl").append(step=1)


def test_progress_lines(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    with logs.progress("curve", 100, 20, unit="step") as bar:
        for _ in range(2):
            now[0] += 4.0
            bar.advance(10, images=640, loss=0.5)
    # One line after 8 s: 20 of the 80 steps left in 8 s, so 60 more take 24 s.
    assert capsys.readouterr().err.splitlines() == [
        "curve: step 40/100  loss 0.5  images/s 160  0:24 left"
    ]
