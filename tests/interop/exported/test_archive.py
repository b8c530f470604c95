"""Reading a .pt2 file executes nothing; bad files end in one line; what is written PyTorch reads."""

import json
import pickle
import random
import zipfile

import jax
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.interop.exported import archive
from mcjax.interop.exported.load import load_exported, save_exported
from mcjax.interop.files import read_state_dict

torch = pytest.importorskip("torch")


def rewritten(old, new, change_fn, *, compression=zipfile.ZIP_STORED):
    """Copies an archive; `change_fn(name, data)` returns a record's new contents."""
    with zipfile.ZipFile(old) as a, zipfile.ZipFile(new, "w", compression) as b:
        for name in a.namelist():
            b.writestr(name, change_fn(name, a.read(name)))
    return new


def with_json(old, new, part, change_fn):
    def change(name, data):
        if not name.endswith(part):
            return data
        held = json.loads(data)
        change_fn(held)
        return json.dumps(held).encode()

    return rewritten(old, new, change)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_reads_what_pytorch_has(exported, net):
    held = archive.read(exported)
    assert held.version == torch.__version__
    state = net.state_dict()
    assert held.tensors.keys() == state.keys()
    for name, w in state.items():
        np.testing.assert_array_equal(held.tensors[name], w.numpy())


def test_needs_no_pytorch_and_no_pickle(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("mcjax.interop.files._torch", lambda path: pytest.fail("PyTorch was used"))
    monkeypatch.setattr(pickle, "loads", lambda *a: pytest.fail("something was unpickled"))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("something was unpickled"))
    mark = tmp_path / "executed"
    evil = pickle.dumps(Evil(str(mark)))
    path = rewritten(
        exported, tmp_path / "evil.pt2", lambda n, d: evil if "sample_inputs" in n else d
    )
    loaded = load_exported(path)
    target = tmp_path / "again.pt2"
    archive.write(target, loaded.archive, {})
    with zipfile.ZipFile(target) as written:
        assert evil not in [written.read(name) for name in written.namelist()]
    assert not mark.exists()


@pytest.mark.parametrize("what", ["weight", "whole", "object"])
def test_malicious_pickles_are_refused(exported, tmp_path, what):
    mark = tmp_path / "executed"
    path = tmp_path / "evil.pt2"

    def pickled(config):
        (first, *_) = config["config"].values()
        first["use_pickle"] = True
        if what == "object":
            first["tensor_meta"] = None

    if what == "whole":
        evil = pickle.dumps(Evil(str(mark)))
        with zipfile.ZipFile(exported) as a, zipfile.ZipFile(path, "w") as b:
            for name in a.namelist():
                b.writestr(name, a.read(name))
            b.writestr("net/data/weights/model.pt", evil)
    else:
        torch.save(Evil(str(mark)), tmp_path / "weight")
        evil = (tmp_path / "weight").read_bytes()
        first = with_json(exported, tmp_path / "one.pt2", "model_weights_config.json", pickled)
        rewritten(first, path, lambda n, d: evil if n.endswith("weights/weight_0") else d)
    with pytest.raises(UserError, match=r"could run a program|can't be read"):
        archive.read(path)
    assert not mark.exists()


def test_expressions_are_arithmetic(exported, tmp_path):
    """`torch.export.load` evaluates them, so they must not reach a repaired file."""

    def evil(program):
        size = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        text = "__import__('os').system('true')"
        size[0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    with pytest.raises(UserError, match="not arithmetic"):
        archive.read(with_json(exported, tmp_path / "e.pt2", "model.json", evil))


def test_guards_are_not_written(exported, tmp_path):
    path = with_json(
        exported, tmp_path / "g.pt2", "model.json", lambda p: p.update(guards_code=["print(1)"])
    )
    archive.write(tmp_path / "out.pt2", archive.read(path), {})
    with zipfile.ZipFile(tmp_path / "out.pt2") as written:
        (name,) = (n for n in written.namelist() if n.endswith("model.json"))
        assert json.loads(written.read(name))["guards_code"] == []


def change_size(config):
    config["config"]["head.weight"]["tensor_meta"]["sizes"][0]["as_int"] = 10**9


def change_strides(config):
    meta = config["config"]["head.weight"]["tensor_meta"]
    meta["sizes"] = [{"as_int": 10**6}, {"as_int": 10**6}]
    meta["strides"] = [{"as_int": 0}, {"as_int": 0}]


def change_offset(config):
    config["config"]["head.weight"]["tensor_meta"]["storage_offset"]["as_int"] = -1


@pytest.mark.parametrize("change_fn", [change_size, change_strides, change_offset])
def test_sizes_are_checked_before_reading(exported, tmp_path, change_fn):
    path = with_json(exported, tmp_path / "s.pt2", "model_weights_config.json", change_fn)
    with pytest.raises(UserError, match="damaged"):
        archive.read(path)


def test_compressed_archives(exported, tmp_path):
    path = rewritten(exported, tmp_path / "c.pt2", lambda n, d: d, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is compressed"):
        archive.read(path)


def test_versions(exported, tmp_path):
    for major, words in ((9, "newer|older PyTorch"), (5, "old PyTorch")):
        path = with_json(
            exported,
            tmp_path / f"{major}.pt2",
            "model.json",
            lambda p, major=major: p["schema_version"].update(major=major),
        )
        with pytest.raises(UserError, match=words):
            archive.read(path)


def test_other_files(tmp_path, net):
    with pytest.raises(UserError, match="no such file"):
        archive.read(tmp_path / "none.pt2")
    path = tmp_path / "state.pt2"
    torch.save(net.state_dict(), path)
    with pytest.raises(UserError, match="no exported program"):
        archive.read(path)
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="damaged"):
        archive.read(path)


def assert_network_or_one_line(path):
    said = "a network"
    try:
        load_exported(path)
    except UserError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


def test_damaged_files_end_in_one_line(exported, tmp_path):
    """Random bytes and cuts: a network, or a UserError of one line."""
    whole = exported.read_bytes()
    chance = random.Random(0)
    path = tmp_path / "d.pt2"
    for _ in range(30):
        data = bytearray(whole)
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data))]
        for _ in range(chance.randrange(1, 40)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        assert_network_or_one_line(path)


def test_damaged_json_ends_in_one_line(exported, tmp_path):
    """Parts of the JSON are replaced by others."""
    chance = random.Random(1)
    others = [None, [], {}, 3, "x", -1.5, {"as_int": 1}, [[]]]

    def damage(held):
        place = held
        for _ in range(chance.randrange(2, 12)):
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                return
            key = chance.choice(list(keys))
            if not isinstance(place[key], dict | list) or chance.random() < 0.1:
                place[key] = chance.choice(others)
                return
            place = place[key]

    for i in range(30):
        part = "model.json" if i % 2 else "model_weights_config.json"
        path = with_json(exported, tmp_path / "j.pt2", part, damage)
        assert_network_or_one_line(path)


def test_tied_weights_stay_tied(export_fn, tmp_path):
    nn = torch.nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.relu(self.a(x.flatten(1))))

    loaded = load_exported(export_fn(Tied(), (2, 1, 2, 2)))
    variables = jax.tree.map(lambda w: 2 * w, loaded.variables)
    assert len(jax.tree.leaves(variables)) == 3
    save_exported(tmp_path / "out.pt2", variables, loaded)
    save_exported(tmp_path / "out.safetensors", variables, loaded)
    for again in (
        archive.read(tmp_path / "out.pt2").tensors,
        read_state_dict(tmp_path / "out.safetensors").tensors,
    ):
        for name in ("a.weight", "b.weight", "a.bias", "b.bias"):
            np.testing.assert_array_equal(again[name], 2 * loaded.archive.tensors[name])


def test_old_layout(exported, net, tmp_path):
    """PyTorch 2.6 and 2.7 kept the weights as a pickled state dict."""
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(exported) as a, zipfile.ZipFile(path, "w") as b:
        (name,) = (n for n in a.namelist() if n.endswith("model.json"))
        b.writestr("serialized_exported_program.json", a.read(name))
        b.writestr("version", "8.20")
        for part, held in (
            ("state_dict", dict(net.state_dict())),
            ("constants", {}),
            ("example_inputs", ((torch.rand(2, 3, 8, 8),), {})),
        ):
            torch.save(held, tmp_path / part)
            b.writestr(f"serialized_{part}.pt", (tmp_path / part).read_bytes())
    held = archive.read(path)
    new = {"head.bias": held.tensors["head.bias"] + 1}
    archive.write(tmp_path / "out.pt2", held, new)
    np.testing.assert_array_equal(
        archive.read(tmp_path / "out.pt2").tensors["head.bias"], new["head.bias"]
    )
    x = torch.rand(2, 3, 8, 8)
    again = torch.export.load(tmp_path / "out.pt2").module()
    np.testing.assert_allclose(again(x).detach(), net(x).detach() + 1, rtol=1e-5, atol=1e-5)


def test_wrong_weights_are_refused(exported, tmp_path):
    held = archive.read(exported)
    with pytest.raises(UserError, match="has no tensor"):
        archive.write(tmp_path / "out.pt2", held, {"head.bias": np.zeros(6, np.float32)})
