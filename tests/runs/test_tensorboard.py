"""TensorBoard's events hold what metrics.jsonl holds, after a kill too; without the package, one line."""

import importlib.util
import sys

import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.runs import config as base
from mcjax.runs.run import metric_log
from mcjax.runs.tensorboard import rows


def events(folder):
    """{(stage, name): {step: value}} of every event in a folder, and how many there are."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2", reason="no tensorboardX here")
    found, number = {}, 0
    for file in folder.rglob("events.*"):
        stage, data = file.parent.relative_to(folder).as_posix(), file.read_bytes()
        while data:
            # A record: its length, the length's checksum, the event, its checksum.
            length = int.from_bytes(data[:8], "little")
            event = proto.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found.setdefault((stage, value.tag), {})[event.step] = value.simple_value
                number += 1
    return found, number


def expected(path):
    found = {}
    for row in rows(path):
        stage, step = row.pop("stage"), row.pop("step")
        for name, value in row.items():
            found.setdefault((stage, name), {})[step] = float(np.float32(value))
    return found


def fill(log, stages=("seed_0/endpoint_a", "curve")):
    for stage in stages:
        for step in (100, 200, 250):
            log.append(stage=stage, step=step, loss=0.1 * step, accuracy=1 / step)


def test_events_are_the_lines_of_metrics_jsonl(tmp_path):
    pytest.importorskip("tensorboardX")
    log = metric_log(tmp_path, tensorboard=True)
    fill(log)
    log.close()
    found, number = events(tmp_path / "tensorboard")
    assert found == expected(log.path)
    assert number == 2 * 3 * 2


def test_a_stage_that_goes_on_has_every_step_once(tmp_path):
    pytest.importorskip("tensorboardX")
    log = metric_log(tmp_path, tensorboard=True)
    fill(log)
    log.close()  # killed here, its last checkpoint at step 100
    log = metric_log(tmp_path, tensorboard=True)
    log.rewind("curve", 100)
    log.append(stage="curve", step=200, loss=7.0, accuracy=0.5)
    log.close()
    found, number = events(tmp_path / "tensorboard")
    assert found == expected(log.path)
    assert found["curve", "loss"] == {100: 10.0, 200: 7.0}
    assert number == 2 * (3 + 2)


def test_events_asked_for_later_hold_what_was_before(tmp_path):
    pytest.importorskip("tensorboardX")
    fill(metric_log(tmp_path, tensorboard=False))
    assert not (tmp_path / "tensorboard").exists()
    log = metric_log(tmp_path, tensorboard=True)
    log.close()
    assert events(tmp_path / "tensorboard")[0] == expected(log.path)


def test_without_the_package_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'mcjax\[tensorboard\]'"):
        metric_log(tmp_path, tensorboard=True)


def test_the_field_changes_no_hash():
    config = base.connect()
    before = base.config_hash(config)
    config.run.tensorboard = True
    assert base.config_hash(config) == before


def test_lines_that_no_run_has_written_are_left_out(tmp_path):
    """Of another program, edited or damaged: no traceback, and no folder outside the events."""
    good = '{"stage": "curve", "step": 1, "loss": NaN}'
    lines = [
        "[1]",
        "3",
        "[" * 100_000,
        '{"stage": "../../outside", "step": 1, "loss": 1.0}',
        '{"stage": "/outside", "step": 1, "loss": 1.0}',
        '{"stage": ["curve"], "step": 1, "loss": 1.0}',
        '{"stage": "curve", "step": "one", "loss": 1.0}',
        '{"stage": "curve", "step": 1, "loss": "low"}',
        '{"stage": "curve", "step": 1, "loss": 1' + "0" * 400 + "}",
        good,
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\xff\xfe\n" + "\n".join(lines).encode())
    (row,) = rows(path)
    assert (row["stage"], row["step"]) == ("curve", 1)
    if importlib.util.find_spec("tensorboardX"):
        metric_log(tmp_path, tensorboard=True).close()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]
