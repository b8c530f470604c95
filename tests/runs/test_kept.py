"""Steps that are kept until a command's output is complete."""

import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.runs.kept import Kept

TREE = {"params": ({"w": np.arange(3.0, dtype=np.float32)}, np.int32(2)), "batch_stats": {}}


def like():
    return {"params": ({"w": jnp.zeros(3)}, jnp.int32(0)), "batch_stats": {}}


def test_a_step_is_computed_once_per_question(tmp_path, capsys):
    one, other = (Kept(tmp_path / "out", {"seed": seed}) for seed in (0, 1))
    assert one("search of a", like, lambda: TREE) is TREE
    assert capsys.readouterr().err == ""
    again = one("search of a", like, lambda: pytest.fail("computed again"))
    assert isinstance(again["params"], tuple)
    np.testing.assert_array_equal(again["params"][0]["w"], [0, 1, 2])
    assert again["batch_stats"] == {}
    assert "search of a: kept from before the interruption" in capsys.readouterr().err
    computed = []
    for name, kept in (("search of b", one), ("search of a", other)):
        kept(name, like, lambda name=name: computed.append(name) or TREE)
    assert computed == ["search of b", "search of a"]


def test_all_steps_are_forgotten_together(tmp_path):
    kept = Kept(tmp_path / "out", {})
    kept("a", like, lambda: TREE)
    assert [child.name for child in tmp_path.iterdir()] == ["out.unfinished"]
    kept.forget()
    assert list(tmp_path.iterdir()) == []
    kept.forget()


def test_other_code_computes_anew(tmp_path, monkeypatch):
    kept, computed = Kept(tmp_path / "out", {}), []
    for number in ("one", "two", "two"):
        monkeypatch.setattr("mcjax.runs.kept.git_revision", lambda number=number: number)
        kept("a", like, lambda number=number: computed.append(number) or TREE)
    assert computed == ["one", "two"]


def test_what_no_checkpoint_can_hold_is_computed_each_time(tmp_path):
    kept, computed = Kept(tmp_path / "out", {}), []
    for i in range(2):
        kept("a", like, lambda i=i: computed.append(i) or {"w": np.zeros((0, 3))})
    assert computed == [0, 1]


def test_an_output_is_cleared_only_if_its_own_command_was_interrupted(tmp_path):
    out = tmp_path / "out"
    kept = Kept(out, {"seed": 0})

    def written(name):
        out.mkdir(exist_ok=True)
        (out / name).write_text("")

    names = ("path", "result")
    written("path.csv")
    kept.clear(names)
    assert out.exists()  # a stranger's: no step was ever kept
    kept("a", like, lambda: TREE)
    Kept(out, {"seed": 1}).clear(names)
    assert out.exists()  # another question's
    kept.clear(names)
    assert not out.exists()
    written("path.csv")
    written("thesis.txt")
    kept.clear(names)
    assert out.exists()
    (out / "thesis.txt").unlink()
    written("result.json")
    kept.clear(names)
    assert out.exists()


def test_a_strangers_files_stay(tmp_path):
    kept = Kept(tmp_path / "out", {})
    kept("a", like, lambda: TREE)
    (tmp_path / "out.unfinished" / "mine.txt").write_text("")
    kept.forget()
    assert [child.name for child in (tmp_path / "out.unfinished").iterdir()] == ["mine.txt"]


def test_a_file_in_the_place_of_the_steps_is_told_at_once(tmp_path):
    (tmp_path / "out.unfinished").write_text("")
    with pytest.raises(UserError, match=r"out.unfinished is a file; give another --out"):
        Kept(tmp_path / "out", {}).clear(())
