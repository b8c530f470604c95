"""Checkpoints come back bit-equal, or as a one-line error."""

import os
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mcjax.core.errors import UserError
from mcjax.runs import checkpoint
from mcjax.training import init_state, sgd

TREE = {
    "params": {"w": np.float32([1.5, -0.0]), "b": np.zeros((2, 3), np.float32)},
    "batch_stats": {},
}


def test_round_trip_bit_equal(tmp_path):
    checkpoint.save(tmp_path / "a", TREE, config_hash="x", step=3)
    tree, metadata = checkpoint.restore(tmp_path / "a", TREE)
    assert tree.keys() == TREE.keys()
    np.testing.assert_array_equal(
        tree["params"]["w"].view(np.int32), TREE["params"]["w"].view(np.int32)
    )
    assert metadata["config_hash"] == "x"
    assert metadata["step"] == 3


def test_training_state_round_trip(tmp_path):
    params = {"bends": ({"w": jnp.ones(3)}, {"w": jnp.zeros(3)})}
    state = init_state(params, {}, sgd(0.1, 10, momentum=0.9, weight_decay=0.1))
    checkpoint.save_partial(tmp_path / "s", state, step=5)
    checkpoint.save_partial(tmp_path / "s", state._replace(step=jnp.int32(9)), step=9)
    restored = checkpoint.restore_partial(tmp_path / "s", state)
    assert restored.step == 9
    assert isinstance(restored.params["bends"], tuple)
    assert optax.tree.norm(restored.params) == optax.tree.norm(params)
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["9"]


def test_nothing_kept_yet(tmp_path):
    assert checkpoint.restore_partial(tmp_path / "s", TREE) is None


def test_missing(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoint.restore(tmp_path / "a")


def data_files(folder):
    return [p for p in folder.rglob("*") if p.is_file() and p.parent.name == "d"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged(tmp_path, damage):
    folder = tmp_path / "a"
    checkpoint.save(folder, {"w": np.arange(1000, dtype=np.float32)})
    for path in data_files(folder):
        data = bytearray(path.read_bytes())
        if damage == "truncate":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "flip":
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        else:
            path.unlink()
    with pytest.raises(UserError, match="is damaged") as caught:
        checkpoint.restore(folder)
    assert "\n" not in str(caught.value)


def test_wrong_numbers_that_read_well(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "digest", lambda tree: "0" * 64)
    checkpoint.save(tmp_path / "a", TREE)
    monkeypatch.undo()
    with pytest.raises(UserError, match="do not match their checksum"):
        checkpoint.restore(tmp_path / "a")


def test_of_another_network(tmp_path):
    checkpoint.save(tmp_path / "a", TREE)
    like = {**TREE, "params": {**TREE["params"], "w": np.zeros(5, np.float32)}}
    with pytest.raises(UserError, match=r"differ at params/w: float32\[5\] and float32\[2\]"):
        checkpoint.restore(tmp_path / "a", like)


def test_disk_full_leaves_the_old_one(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    checkpoint.save(tmp_path / "a", TREE)
    program = f"""
        import resource, signal, sys
        import numpy as np
        from pathlib import Path
        from mcjax.runs import checkpoint
        from mcjax.core.errors import UserError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            checkpoint.save(Path({str(tmp_path)!r}) / "b", {{"w": np.random.randn(100_000)}})
        except UserError as error:
            print(error)
            sys.exit(2)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("can't write")
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "b").exists()
    checkpoint.restore(tmp_path / "a", TREE)


def test_a_folder_of_other_things_is_not_called_damaged(tmp_path):
    (tmp_path / "figures").mkdir()
    with pytest.raises(UserError, match="is not a checkpoint; give a checkpoint's folder"):
        checkpoint.restore(tmp_path)
