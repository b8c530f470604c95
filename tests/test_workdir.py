"""A directory belongs to one config, and files in it are whole or absent."""

import errno
import json
import os
import subprocess

import pytest

from mcjax import config as base
from mcjax import workdir as module
from mcjax.errors import UserError
from mcjax.workdir import (
    arch_of_run,
    open_workdir,
    publish,
    read_config,
    read_csv,
    write,
    write_csv,
)


def test_config_json_says_what_was_run_where(tmp_path):
    workdir = open_workdir(tmp_path / "deep" / "run", base.connect())
    record = json.loads((workdir / "config.json").read_text())
    assert record["hash"] == base.config_hash(base.connect())
    assert record["config"]["curve"]["num_bends"] == 1
    assert {"git_revision", "packages", "device_kind", "num_devices"} <= record.keys()
    assert record["packages"]["jax"]


def test_same_config_goes_on_another_does_not(tmp_path):
    open_workdir(tmp_path, base.connect())
    same = base.connect()
    same.run.checkpoint_seconds = 1.0
    open_workdir(tmp_path, same)
    (tmp_path / "checkpoints").mkdir()
    before = (tmp_path / "config.json").read_bytes()
    other = base.connect()
    other.curve.num_bends = 3
    with pytest.raises(UserError, match=r"another config \(curve.num_bends: 1 there, 3 now\)"):
        open_workdir(tmp_path, other)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_that_computed_nothing_gives_its_place_to_another_config(tmp_path):
    mistaken = base.connect()
    mistaken.curve.num_bends = 3
    open_workdir(tmp_path, mistaken)
    open_workdir(tmp_path, base.connect())
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["curve"]["num_bends"] == 1


def test_data_that_have_changed(tmp_path):
    """Else a resumed run would draw another split, with images that its networks were trained on."""
    open_workdir(tmp_path, base.connect(), {"train": "1", "test": "2"})
    (tmp_path / "checkpoints").mkdir()
    open_workdir(tmp_path, base.connect(), {"train": "1", "test": "2"})
    with pytest.raises(UserError, match=r"not those that .* began with \(test differ\)"):
        open_workdir(tmp_path, base.connect(), {"train": "1", "test": "3"})
    (tmp_path / "checkpoints").rmdir()
    open_workdir(tmp_path, base.connect(), {"train": "1", "test": "3"})
    assert read_config(tmp_path)["data"] == {"train": "1", "test": "3"}


@pytest.mark.parametrize("name", ["result.json", "paths", "table.csv"])
def test_results_without_checkpoints_are_still_a_run(tmp_path, name):
    open_workdir(tmp_path, base.connect())
    (tmp_path / name).touch()
    other = base.connect()
    other.curve.num_bends = 3
    with pytest.raises(UserError, match="another config"):
        open_workdir(tmp_path, other)


def test_broken_config_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json can't be read"):
        open_workdir(tmp_path, base.connect())


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="can't write"):
        open_workdir(tmp_path / "run", base.connect())
    assert (tmp_path / "run").read_text() == "mine"


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write(path, "old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_csv_keeps_every_digit(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, ("t", "loss"), [{"t": 0.1, "loss": 1 / 3}, {"t": 1.0, "loss": 2e-300}])
    assert read_csv(path) == {"t": [0.1, 1.0], "loss": [1 / 3, 2e-300]}
    path.write_text("t,loss\n0.1\n")
    with pytest.raises(UserError, match="can't be read"):
        read_csv(path)


@pytest.mark.parametrize("text", ['{"hash": 3}', "[]", "not JSON"])
def test_a_config_json_of_another_kind_is_told_in_a_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json can't be read \(.+\); delete the folder"):
        read_config(tmp_path)


def test_published_once_where_there_are_no_links(tmp_path, monkeypatch):
    """A bucket that is mounted as a folder (gcsfuse) has no hard links."""

    def no_links(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    assert publish(tmp_path / "result.json", "first")
    assert not publish(tmp_path / "result.json", "second")
    assert (tmp_path / "result.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_revision_is_not_that_of_a_repository_around_an_installed_package(
    tmp_path, monkeypatch
):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    commit = ["git", "-C", tmp_path, *who, "commit", "-q", "-m", "a"]
    subprocess.run([*commit, "--allow-empty"], check=True)
    (tmp_path / "workdir.py").touch()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "workdir.py"))
    assert module.git_revision() is None
    subprocess.run(["git", "-C", tmp_path, "add", "workdir.py"], check=True)
    subprocess.run(commit, check=True)
    assert len(module.git_revision()) == 40


def test_another_programs_config_json_says_nothing_of_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text('{"theme": "dark"}')
    assert arch_of_run(tmp_path / "net") == ""
