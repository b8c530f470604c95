"""A run that is complete is known by its files alone."""

import json

import pytest

from mcjax.runs import config as base
from mcjax.runs.complete import FILES, complete
from mcjax.runs.config import config_hash
from mcjax.runs.records import Damaged, read_result
from mcjax.runs.seal import is_sealed, sealed


def finished(folder, config, **changes):
    result = {"config_hash": config_hash(config), "status": "complete", "metrics": {"a": 0.5}}
    for name in FILES:
        (folder / name).write_text("")
    (folder / "result.json").write_text(json.dumps({**sealed(result), **changes}))
    return sealed(result)


def test_the_result_of_a_complete_run(tmp_path):
    config = base.connect()
    assert complete(config, tmp_path) is None
    result = finished(tmp_path, config)
    assert is_sealed(result)
    assert complete(config, tmp_path) == result
    config.seed = 1
    assert complete(config, tmp_path) is None  # another run's


@pytest.mark.parametrize(
    "changes",
    [{"metrics": {"a": 0.9}}, {"status": "running"}, {"checksum": None}, {"seconds": 1.0}],
    ids=str,
)
def test_a_changed_result_is_not_trusted(changes, tmp_path):
    config = base.connect()
    finished(tmp_path, config, **changes)
    assert complete(config, tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "null", '{"status": "complete"}', "{"])
def test_a_damaged_result_is_not_trusted(content, tmp_path):
    config = base.connect()
    finished(tmp_path, config)
    (tmp_path / "result.json").write_text(content)
    assert complete(config, tmp_path) is None


@pytest.mark.parametrize("name", FILES)
def test_a_run_that_lacks_a_file_has_something_to_do(name, tmp_path):
    config = base.connect()
    finished(tmp_path, config)
    (tmp_path / name).unlink()
    assert complete(config, tmp_path) is None


def test_the_users_own_data_are_always_read(tmp_path):
    config = base.connect()
    config.data.name = "npz:mine.npz"
    finished(tmp_path, config)
    assert complete(config, tmp_path) is None


def test_reports_take_a_changed_result_as_damaged(tmp_path):
    finished(tmp_path, base.connect())
    file = tmp_path / "result.json"
    assert read_result(file).metrics == {"a": 0.5}
    published = json.loads(file.read_text()) | {"attempt": "0001", "exit_code": 0, "code": {}}
    file.write_text(json.dumps(published))
    assert read_result(file).attempt == "0001"
    file.write_text(json.dumps(published | {"metrics": {"a": 0.9}}))
    with pytest.raises(Damaged, match="do not match their checksum"):
        read_result(file)
