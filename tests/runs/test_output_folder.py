"""The output folder of a command: new, or complete for the same arguments."""

import json
import os

import pytest

from mcjax.core.errors import UserError
from mcjax.runs.output_folder import answered, asked, finish, new_folder


@pytest.fixture
def data(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "1.png").write_bytes(b"one")
    return str(tmp_path / "images")


@pytest.fixture
def folder(tmp_path, data):
    """A complete folder."""
    folder = new_folder(tmp_path / "out", "--out")
    folder.mkdir()
    (folder / "report.html").write_text("")
    finish(folder, {"status": "complete", "metrics": {}}, asked({"forms": ("patch",)}, [data]))
    return folder


def test_the_same_question_is_answered(folder, data):
    assert answered(folder, asked({"forms": ["patch"]}, [data, None]))["status"] == "complete"


def test_another_question_is_not(folder, data, tmp_path):
    assert answered(folder, asked({"forms": ["warp"]}, [data])) is None
    assert answered(tmp_path, asked({"forms": ["patch"]}, [data])) is None
    for change in (
        lambda path: (path / "a" / "2.png").write_bytes(b""),
        lambda path: (path / "a" / "2.png").rename(path / "b"),
        lambda path: os.utime(path / "b", ns=(1, 1)),
    ):
        before = asked({}, [data])
        change(type(tmp_path)(data))
        assert asked({}, [data]) != before
    question = asked({"forms": ["patch"]}, [data])
    assert answered(folder, question) is None
    with pytest.raises(UserError, match=r"results of other contents of .*/images\); give a new d,"):
        new_folder(folder, "d", question)


def test_a_pattern_stands_for_its_files(data, tmp_path):
    pattern = f"{data}/a/*.png"
    before = asked({}, [pattern])
    assert before["files"][pattern]
    (tmp_path / "images" / "a" / "2.png").write_bytes(b"")
    assert asked({}, [pattern]) != before
    names = ["hf:ylecun/mnist@test[:500]", "gs://bucket/a", "a**", "/none/at/all.npz", "x\0"]
    assert set(asked({}, names)["files"].values()) == {""}


@pytest.mark.parametrize("damage", ["[]", "", "[[", '{"status": "complete"}', "changed"])
def test_a_damaged_folder_is_not_complete(folder, data, damage):
    question = asked({"forms": ["patch"]}, [data])
    result = json.loads((folder / "result.json").read_text())
    text = json.dumps({**result, "status": "no"}) if damage == "changed" else damage
    (folder / "result.json").write_text(text)
    assert answered(folder, question) is None
    with pytest.raises(UserError, match=r"out exists; give a new d, nothing is overwritten"):
        new_folder(folder, "d", question)


def test_a_lost_file_is_missed(folder, data):
    (folder / "report.html").unlink()
    assert answered(folder, asked({"forms": ["patch"]}, [data])) is None
