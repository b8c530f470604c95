import builtins

import numpy as np
import pytest
from image_files import COLOURS, picture

from mcjax.core.errors import UserError
from mcjax.data.examples import parse_size, read_examples


def test_npz(tmp_path):
    np.savez(tmp_path / "x.npz", image=COLOURS, label=np.arange(6))
    found = read_examples(tmp_path / "x.npz")
    np.testing.assert_array_equal(found.examples["image"], COLOURS)
    assert found.class_names == ()
    for option in ({"resize": (2, 2)}, {"channels": 1}):
        with pytest.raises(UserError, match="arrays, which are taken as they are"):
            read_examples(tmp_path / "x.npz", **option)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read_examples(tmp_path / "nope")


@pytest.mark.parametrize("text", ["", "0,3", "3,", "a", "1,2,3", "-1,2", "999999,1"])
def test_sizes_that_are_none(text):
    with pytest.raises(UserError, match="give height and width"):
        parse_size("--resize", text)


def test_without_pillow(tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    picture(COLOURS[0]).save(tmp_path / "cat" / "x.png")

    real = builtins.__import__

    def missing(name, *rest):
        if name.partition(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'", name="PIL")
        return real(name, *rest)

    monkeypatch.setattr("importlib.import_module", lambda name: missing(name))
    with pytest.raises(UserError, match=r'needs PIL; pip install "mcjax\[images\]"'):
        read_examples(tmp_path)
