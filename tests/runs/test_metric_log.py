"""metrics.jsonl after a kill."""

import json

import pytest

from mcjax.core.errors import UserError
from mcjax.runs.metric_log import MetricLog


def test_rewind_drops_what_is_written_again(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
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
        MetricLog(tmp_path / "missing" / "metrics.jsonl").append(step=1)
