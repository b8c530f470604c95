"""Steps that are kept until a command's output is complete."""

import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.runs.kept import Kept

TREE = {"params": ({"w": np.arange(3.0, dtype=np.float32)}, np.int32(2)), "batch_stats": {}}


def like():
    return {"params": ({"w": jnp.zeros(3)}, jnp.int32(0)), "batch_stats": {}}


def test_a_step_is_computed_once_per_question(tmp_path, capsys):
    one, other = (Kept.beside(tmp_path / "out", {"seed": seed}) for seed in (0, 1))
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
    kept = Kept.beside(tmp_path / "out", {})
    kept("a", like, lambda: TREE)
    assert [child.name for child in tmp_path.iterdir()] == ["out.unfinished"]
    kept.forget()
    assert list(tmp_path.iterdir()) == []
    kept.forget()


def test_another_version_computes_anew(tmp_path, monkeypatch):
    kept, computed = Kept.beside(tmp_path / "out", {}), []
    for number in ("1.0", "2.0", "2.0"):
        monkeypatch.setattr("mcjax.runs.kept.version", lambda name, number=number: number)
        kept("a", like, lambda number=number: computed.append(number) or TREE)
    assert computed == ["1.0", "2.0"]
