"""Files of tensors: safetensors without PyTorch, and what PyTorch's restricted reader reads."""

import collections
import json
import os
import pickle
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.core.errors import UserError
from mcjax.interop.files import StateDict, fresh, read_state_dict, with_tensors, write_state_dict

W = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


def write_bytes(path, data):
    path.write_bytes(data)
    return path


def test_safetensors_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    state = StateDict({"fc.weight": W, "fc.count": np.array(3)})
    write_state_dict(tmp_path / "net.safetensors", state)
    again = read_state_dict(tmp_path / "net.safetensors")
    assert again.tensors["fc.weight"].tobytes() == W.tobytes()
    assert again.tensors["fc.count"].shape == ()
    assert again.notes == ()
    for name in ("net.pt", "net.pth"):
        write_bytes(tmp_path / name, b"x")
        with pytest.raises(UserError, match=r"need PyTorch; pip install 'mcjax\[torch\]'"):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_become_float32_and_that_is_said(tmp_path, dtype):
    safetensors.numpy.save_file({"w": W.astype(dtype)}, tmp_path / "w.safetensors")
    state = read_state_dict(tmp_path / "w.safetensors")
    assert state.tensors["w"].dtype == np.float32
    np.testing.assert_array_equal(state.tensors["w"], W.astype(dtype).astype(np.float32))
    assert state.notes == (f"its tensors are {np.dtype(dtype)}; mcjax computes in float32",)


def test_the_order_of_safetensors_is_that_of_names(tmp_path):
    """The reader's own order changes from process to process; images' channels are read off the first."""
    names = [f"layer{i}.{j}" for i in range(5) for j in range(5)]
    safetensors.numpy.save_file(dict.fromkeys(reversed(names), W), tmp_path / "w.safetensors")
    assert list(read_state_dict(tmp_path / "w.safetensors").tensors) == names


def test_bfloat16_of_safetensors(tmp_path):
    w = W.astype(ml_dtypes.bfloat16)
    header = {"w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, w.nbytes]}}
    header = json.dumps(header).encode()
    whole = len(header).to_bytes(8, "little") + header + w.tobytes()
    write_bytes(tmp_path / "w.safetensors", whole)
    state = read_state_dict(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(state.tensors["w"], w.astype(np.float32))


def test_damaged_safetensors(tmp_path):
    safetensors.numpy.save_file({"w": W}, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for name, data in {
        "half": whole[:-5],
        "start": whole[:9],
        "none": b"",
        "text": b"<html>",
    }.items():
        path = write_bytes(tmp_path / f"{name}.safetensors", data)
        with pytest.raises(UserError, match=r"can't be read .*; it is damaged") as error:
            read_state_dict(path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        read_state_dict(tmp_path / "other.safetensors")


def test_a_fresh_state_dict_has_the_counts_that_strict_loading_asks_for():
    state = fresh({"bn.running_mean": W[0], "bn.running_var": W[1]})
    assert list(state.tensors) == ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]
    assert state.tensors["bn.num_batches_tracked"].dtype == np.int64


class Code:
    """Makes a file when a pickle of it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class TestPickles:
    """Files of torch.save."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def test_a_plain_state_dict(self, torch, tmp_path):
        for new in (True, False):
            path = tmp_path / f"{new}.pt"
            held = collections.OrderedDict(w=torch.tensor(W), n=torch.tensor(4))
            torch.save(held, path, _use_new_zipfile_serialization=new)
            state = read_state_dict(path)
            assert state.tensors["w"].tobytes() == W.tobytes()
            assert state.tensors["n"] == 4
            assert (state.keys, state.prefix, state.notes) == ((), "", ())

    @pytest.mark.parametrize("key", ["state_dict", "model_state", "model", "net"])
    def test_wrapped_in_a_checkpoint_of_dataparallel(self, torch, tmp_path, key):
        optimizer = {
            "state": {0: {"momentum_buffer": torch.zeros(3)}},
            "param_groups": [{"lr": 0.1}],
        }
        held = {"epoch": 3, key: {"module.w": torch.tensor(W)}, "optimizer_state": optimizer}
        torch.save(held, tmp_path / "net.pt")
        state = read_state_dict(tmp_path / "net.pt")
        assert list(state.tensors) == ["w"]
        assert (state.keys, state.prefix, state.beside) == ((key,), "module.", {"epoch": 3})
        write_state_dict(tmp_path / "new.pt", with_tensors(state, {"w": 2 * W}))
        new = torch.load(tmp_path / "new.pt", weights_only=True)
        assert new["epoch"] == 3
        assert "optimizer_state" not in new
        np.testing.assert_array_equal(new[key]["module.w"].numpy(), 2 * W)

    def test_an_attack_result_of_backdoorbench(self, torch, tmp_path):
        """It keeps numpy's indices and numbers, and lists, beside the state dict."""
        held = {
            "model_name": "preactresnet18",
            "num_classes": 10,
            "model": {"linear.weight": torch.tensor(W)},
            "img_size": [32, 32, 3],
            "bd_train": {
                "x": torch.zeros(2, 3, 4, 4),
                "original_index": np.where(np.ones(3) == 1)[0],
                "targets": [np.int64(3), np.float32(0.5)],
                "names": np.array(["a", "bc"]),
            },
        }
        torch.save(held, tmp_path / "attack_result.pt")
        state = read_state_dict(tmp_path / "attack_result.pt")
        assert state.tensors["linear.weight"].tobytes() == W.tobytes()
        assert state.beside == {"model_name": "preactresnet18", "num_classes": 10}

    def test_half_precision(self, torch, tmp_path):
        for dtype in (torch.float16, torch.bfloat16):
            torch.save({"w": torch.tensor(W).to(dtype)}, tmp_path / "net.pt")
            state = read_state_dict(tmp_path / "net.pt")
            expected = torch.tensor(W).to(dtype).to(torch.float32).numpy()
            assert state.tensors["w"].tobytes() == expected.tobytes()
            assert str(dtype).removeprefix("torch.") in state.notes[0]

    @pytest.mark.parametrize("function", [os.mkdir, eval])
    def test_a_pickle_that_runs_code_is_refused_and_not_run(self, torch, tmp_path, function):
        there = tmp_path / "there"
        argument = str(there) if function is os.mkdir else f"__import__('os').mkdir({str(there)!r})"
        held = {"w": torch.tensor(W), "extra": Code(function, argument)}
        torch.save(held, tmp_path / "net.pt")
        torch.save(held, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        write_bytes(tmp_path / "raw.pt", pickle.dumps(held["extra"], protocol=2))
        for name in ("net", "old", "raw"):
            with pytest.raises(UserError, match=r"could run a program|can't be read") as error:
                read_state_dict(tmp_path / f"{name}.pt")
            assert "\n" not in str(error.value)
        assert not there.exists()
        pickle.loads(pickle.dumps(held["extra"]))  # what reading it carelessly does
        assert there.exists()

    def test_code_in_an_array_of_objects_is_refused(self, torch, tmp_path):
        there = tmp_path / "there"
        array = np.array([Code(os.mkdir, str(there)), 1], dtype=object)
        torch.save({"model": {"w": torch.tensor(W)}, "x": array}, tmp_path / "net.pt")
        with pytest.raises(UserError, match="could run a program"):
            read_state_dict(tmp_path / "net.pt")
        assert not there.exists()

    def test_a_whole_module_is_refused_by_its_name(self, torch, tmp_path):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pt")
        with pytest.raises(UserError, match=r"object torch.nn.modules.linear.Linear, .*state_dict"):
            read_state_dict(tmp_path / "net.pt")

    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
    def test_a_torchscript_program_is_refused(self, torch, tmp_path):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "net.pt"))
        with pytest.raises(UserError, match="is a TorchScript program"):
            read_state_dict(tmp_path / "net.pt")

    def test_damaged_files(self, torch, tmp_path):
        torch.save({"w": torch.tensor(W)}, tmp_path / "net.pt")
        whole = Path(tmp_path / "net.pt").read_bytes()
        parts = {
            "half": whole[: len(whole) // 2],
            "start": whole[:20],
            "none": b"",
            "text": b"<html>",
        }
        for name, data in parts.items():
            path = write_bytes(tmp_path / f"{name}.pt", data)
            with pytest.raises(UserError, match=r"can't be read .*; it is damaged") as error:
                read_state_dict(path)
            assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("held", "message"),
        [
            ({"lr": 0.1, "steps": [1]}, "holds no state dict .keys lr, steps.; save"),
            ([1, 2], "holds no state dict .list.; save"),
            ({}, "holds no state dict"),
        ],
    )
    def test_files_without_a_state_dict(self, torch, tmp_path, held, message):
        torch.save(held, tmp_path / "net.pt")
        with pytest.raises(UserError, match=message):
            read_state_dict(tmp_path / "net.pt")

    def test_sparse_tensors(self, torch, tmp_path):
        torch.save({"w": torch.eye(2).to_sparse()}, tmp_path / "net.pt")
        with pytest.raises(UserError, match="w is sparse"):
            read_state_dict(tmp_path / "net.pt")


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", ""],
)
def test_prefixes_in_any_order_are_seen_through_and_written_again(prefix, tmp_path):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file({prefix + name: W for name in ("module_list.0.w", "b")}, path)
    state = read_state_dict(path)
    assert set(state.tensors) == {"module_list.0.w", "b"}
    write_state_dict(tmp_path / "again.safetensors", state)
    again = safetensors.numpy.load_file(tmp_path / "again.safetensors")
    assert set(again) == {f"{prefix}module_list.0.w", f"{prefix}b"}


def test_an_averaged_model(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(3, 2)
    averaged = torch.optim.swa_utils.AveragedModel(net)
    averaged.update_parameters(net)
    torch.save(averaged.state_dict(), tmp_path / "swa.pt")
    state = read_state_dict(tmp_path / "swa.pt")
    assert set(state.tensors) == {"weight", "bias"}
    assert "average of 1 networks" in " ".join(state.notes)
    write_state_dict(tmp_path / "again.pt", state)
    again = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(3, 2))
    again.load_state_dict(torch.load(tmp_path / "again.pt", weights_only=True))
    np.testing.assert_array_equal(again.module.weight.detach(), net.weight.detach())


def test_a_state_dict_that_holds_itself_ends(tmp_path):
    torch = pytest.importorskip("torch")
    itself: dict = {"epoch": 3}
    itself["state_dict"] = itself
    torch.save(itself, tmp_path / "loop.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict(tmp_path / "loop.pt")
    deep: dict = {"fc.weight": torch.ones(2, 3)}
    for _ in range(40):
        deep = {"model": deep}
    torch.save(deep, tmp_path / "deep.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict(tmp_path / "deep.pt")


def test_tensors_that_hold_no_usable_numbers(tmp_path):
    torch = pytest.importorskip("torch")
    wrong = {
        "is of type float8_e4m3fn": torch.ones(3).to(torch.float8_e4m3fn),
        "has no data": torch.ones(3, device="meta"),
        "repeats few values": torch.ones(1).expand(2**40),
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    for message, tensor in wrong.items():
        torch.save({"w": tensor}, tmp_path / "net.pt")
        with pytest.raises(UserError, match=message):
            read_state_dict(tmp_path / "net.pt")
    torch.save({"w": torch.ones(1).expand(4), "h": torch.ones(2).half()}, tmp_path / "net.pt")
    found = read_state_dict(tmp_path / "net.pt").tensors
    np.testing.assert_array_equal(found["w"], np.ones(4))
    assert found["h"].dtype == np.float32


@pytest.mark.parametrize(
    "held",
    [
        lambda torch: {f"w{i}": torch.ones(1).expand(2**23) for i in range(3)},
        lambda torch: dict.fromkeys((f"w{i}" for i in range(40)), torch.ones(2**19)),
        lambda torch: dict.fromkeys((f"w{i}" for i in range(80)), torch.ones(2**19).half()),
    ],
)
def test_repeated_numbers_are_limited_over_the_whole_file(tmp_path, held):
    torch = pytest.importorskip("torch")
    torch.save({"fc.weight": torch.ones(3), **held(torch)}, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"net.pt: w0 repeats few values .*; save w.clone") as e:
        read_state_dict(tmp_path / "net.pt")
    assert "\n" not in str(e.value)


def test_tensors_under_two_names_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    w = torch.ones(2**25)  # 128 MiB
    torch.save({"a.weight": w, "b.weight": w.view(2, -1), "c": w[:3]}, tmp_path / "net.pt")
    assert set(read_state_dict(tmp_path / "net.pt").tensors) == {"a.weight", "b.weight", "c"}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors(tmp_path):
    """The shape of a nested tensor raises when it is asked for."""
    torch = pytest.importorskip("torch")
    rows = [torch.ones(2), torch.ones(3)]
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor(rows, layout=layout)
        torch.save({"fc.weight": torch.ones(2), "mask": nested}, tmp_path / "net.pt")
        with pytest.raises(UserError, match="mask is nested; save it as a plain") as caught:
            read_state_dict(tmp_path / "net.pt")
        assert "\n" not in str(caught.value)
        torch.save({"model": {"w": torch.ones(2)}, "beside": nested}, tmp_path / "net.pt")
        assert set(read_state_dict(tmp_path / "net.pt").tensors) == {"w"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a" * 501])
def test_names_that_are_no_short_line_are_refused(tmp_path, name, suffix):
    if suffix == ".pt":
        pytest.importorskip("torch")
    write_state_dict(tmp_path / f"net{suffix}", StateDict({name: W}))
    with pytest.raises(UserError, match="printable characters; rename it") as error:
        read_state_dict(tmp_path / f"net{suffix}")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("key", ["a\nb", "a" * 10**5, ("a\n",), 10**30])
def test_keys_of_no_state_dict_are_shown_in_one_line(tmp_path, key):
    torch = pytest.importorskip("torch")
    torch.save({key: 3}, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"holds no state dict .keys ") as error:
        read_state_dict(tmp_path / "net.pt")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("count", [np.ones(3), np.array(np.nan), np.array(-3), np.array(True)])
def test_a_count_of_averages_that_is_none_is_a_tensor_as_others(tmp_path, count):
    held = {"n_averaged": count, "module.w": W}
    write_state_dict(tmp_path / "net.safetensors", StateDict(held))
    state = read_state_dict(tmp_path / "net.safetensors")
    assert (set(state.tensors), state.counts) == (set(held), {})


NO_WEIGHTS = {
    "text": np.array(["a", "bc"]),
    "bytes": np.array([b"a"]),
    "complex64": np.ones(2, np.complex64),
    r"datetime64\[D\]": np.array(["2020-01-01"], "datetime64[D]"),
    "a record": np.zeros(2, [("a", "f4")]),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_arrays_without_real_numbers_are_refused_by_name(tmp_path, kind):
    torch = pytest.importorskip("torch")
    array = NO_WEIGHTS[kind]
    for held in (array, array.reshape(-1)[0]):  # numpy's scalars have a shape too
        torch.save({"fc.weight": torch.ones(2), "fc.bias": held}, tmp_path / "net.pt")
        with pytest.raises(UserError, match=f"fc.bias is {kind}; .*float32") as error:
            read_state_dict(tmp_path / "net.pt")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("C64", "complex64"), ("F8_E4M3", "of type F8_E4M3"), ("F4", "of type F4")]
)
def test_numbers_of_safetensors_that_are_no_weights_are_refused_by_name(tmp_path, dtype, kind):
    size = {"C64": 16, "F8_E4M3": 2, "F4": 1}[dtype]
    path = write_bytes(tmp_path / "net.safetensors", header_of([2], [0, size], dtype) + bytes(size))
    with pytest.raises(UserError, match=f"net.safetensors: w is {kind}; [^(]*float32") as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_masks_and_whole_numbers_are_read(tmp_path, suffix):
    if suffix == ".pt":
        pytest.importorskip("torch")
    held = {"fc.weight": W, "mask": np.array([True, False]), "n": np.array(3), "b": np.uint8([7])}
    write_state_dict(tmp_path / f"net{suffix}", StateDict(held))
    found = read_state_dict(tmp_path / f"net{suffix}").tensors
    assert {name: w.dtype for name, w in found.items()} == {n: w.dtype for n, w in held.items()}


def test_numbers_of_numpy_beside_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    held = {"w": torch.ones(2), "scale": np.float64(0.5), "big": np.ones(2, ">f4")}
    torch.save(held, tmp_path / "net.pt")
    found = read_state_dict(tmp_path / "net.pt").tensors
    assert found["scale"].shape == ()
    assert {w.dtype for w in found.values()} == {np.dtype(np.float32)}


def header_of(shape, offsets, dtype="F32"):
    text = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header_of([2**40], [0, 2**42]) + bytes(16),
        header_of([2**62, 2**62], [0, 16]) + bytes(16),
        header_of([-1], [0, 4]) + bytes(4),
        header_of([0, 2**62], [0, 0]),
        header_of([4], [8, 4]) + bytes(16),
        (2**63).to_bytes(8, "little") + b"{}",
        (10**6).to_bytes(8, "little") + b"[" * 10**6,
        header_of([2], [0, 8], dtype="F8_E4M3") + bytes(8),
        b"",
    ],
)
def test_safetensors_with_absurd_headers(content, tmp_path):
    path = write_bytes(tmp_path / "net.safetensors", content)
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_normalisation_is_kept_in_safetensors(tmp_path):
    state = StateDict({"w": W}, normalise="0.5/0.25")
    write_state_dict(tmp_path / "net.safetensors", state)
    assert read_state_dict(tmp_path / "net.safetensors").normalise == "0.5/0.25"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".safetensors", ".pt"]))
def test_a_file_of_any_bytes_is_the_tensors_or_refused(tmp_path_factory, data, suffix):
    if suffix == ".pt":
        pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("files") / f"net{suffix}"
    write_state_dict(path, StateDict({"fc.weight": W, "fc.bias": W[0]}))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            content[place : place + data.draw(st.integers(1, 64))] = b""
    path.write_bytes(content)
    try:
        found = read_state_dict(path)
    except UserError as error:
        message = str(error)
        assert "\n" not in message
    else:  # numbers and names have no checksum in these files
        assert all(isinstance(w, np.ndarray) and w.nbytes < 2**20 for w in found.tensors.values())
