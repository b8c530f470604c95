import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from mcjax import data
from mcjax.core.errors import UserError
from mcjax.data.cifar import CIFAR10, CIFAR100, parse_batch


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did, and names NumPy's modules as they were called then."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode()
        self.write(b"T" + struct.pack("<i", len(data)) + data)

    def save_global(self, value, name=None):
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(b"c" + f"{module}\n{value.__qualname__}\n".encode())

    def save_type(self, value):
        self.save_global(value)

    dispatch[bytes] = save_string
    dispatch[str] = save_string
    dispatch[type] = save_type
    dispatch[type(pickle.loads)] = save_global


def pickled(value):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def batch(seed, size=5, key="labels", num_classes=10):
    rng = np.random.default_rng(seed)
    return {
        "data": rng.integers(0, 256, (size, 3072), np.uint8),
        key: rng.integers(0, num_classes, size).tolist(),
        "filenames": [f"image_{i}.png" for i in range(size)],
    }


BATCHES = {
    "cifar10": {name: batch(i) for i, name in enumerate(CIFAR10.train + CIFAR10.test)},
    "cifar100": {
        name: batch(i, key="fine_labels", num_classes=100) | {"coarse_labels": [0] * 5}
        for i, name in enumerate(CIFAR100.train + CIFAR100.test)
    },
}
ORIGINAL = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def write_folder(folder, name, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for member, value in BATCHES[name].items():
        (folder / member).write_bytes(changes.get(member, pickled(value)))


def write_tar(folder, name):
    write_folder(folder / "unpacked", name)
    path = folder / "data" / ORIGINAL[name].archive
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "unpacked", ORIGINAL[name].folders[0])
    return path


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [True, False])
def test_small_archives_read_as_written(tmp_path, name, packed):
    if packed:
        folder = write_tar(tmp_path, name).parent
    else:
        folder = tmp_path / "data"
        write_folder(folder / ORIGINAL[name].folders[0], name)
    dataset = data.load(name, data_dir=folder, verify=False, cache_dir=tmp_path / "cache")
    assert dataset.num_classes == {"cifar10": 10, "cifar100": 100}[name]
    key = {"cifar10": "labels", "cifar100": "fine_labels"}[name]
    for part, members in (("train", ORIGINAL[name].train), ("test", ORIGINAL[name].test)):
        found = getattr(dataset, part)
        flat = np.concatenate([BATCHES[name][m]["data"] for m in members])
        label = np.concatenate([BATCHES[name][m][key] for m in members])
        np.testing.assert_array_equal(found["label"], label)
        # A row holds all red values, then green, then blue, each row by row.
        for row, column, channel in ((0, 0, 0), (3, 7, 1), (31, 30, 2)):
            np.testing.assert_array_equal(
                found["image"][:, row, column, channel], flat[:, 1024 * channel + 32 * row + column]
            )
    assert not (tmp_path / "cache").exists()  # what was not verified is not kept


def test_a_batch_of_protocol_4_reads_too():
    value = {key.encode(): item for key, item in batch(0).items()}
    found = parse_batch(pickle.dumps(value, protocol=4), label_key=b"labels")
    np.testing.assert_array_equal(found["label"], value[b"labels"])


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import pathlib

        return pathlib.Path.touch, (self.path,)


def test_a_pickle_cannot_run_code(tmp_path):
    trap = tmp_path / "touched"
    evil = pickle.dumps({b"data": Malicious(trap), b"labels": []})
    pickle.loads(evil)
    assert trap.exists()  # it would have worked
    trap.unlink()
    write_folder(tmp_path, "cifar10", data_batch_3=evil)
    with pytest.raises(UserError, match="refused"):
        data.load("cifar10", data_dir=tmp_path, verify=False)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "numpy.load", "numpy.fromfile"])
def test_a_pickle_can_name_only_what_arrays_need(name):
    module, function = name.rsplit(".", 1)
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        parse_batch(f"c{module}\n{function}\n.".encode(), label_key=b"labels")


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"not a pickle",
        pickled(batch(0))[:-50],
        pickled([1, 2]),
        pickled({"labels": [1]}),
        pickled({"data": "text", "labels": [1]}),
        pickled({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}),
        pickled({"data": np.zeros((1, 100), np.uint8), "labels": [1]}),
        pickled({"data": np.zeros((1, 3072), np.float32), "labels": [1]}),
        pickled({"data": np.zeros((1, 3072), np.uint8), "labels": [[1, 2]]}),
        pickled({"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]}),
    ],
)
def test_foreign_contents_are_refused_in_one_line(tmp_path, contents):
    write_folder(tmp_path, "cifar10", data_batch_1=contents)
    with pytest.raises(UserError) as caught:
        data.load("cifar10", data_dir=tmp_path, verify=False)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "'cifar10'" in str(caught.value)


def test_a_label_out_of_range_is_refused(tmp_path):
    write_folder(tmp_path, "cifar10", test_batch=pickled(batch(0) | {"labels": [10] * 5}))
    with pytest.raises(UserError, match="labels lie in"):
        data.load("cifar10", data_dir=tmp_path, verify=False)


@pytest.mark.parametrize("cut", [10, 200, 3000])
def test_a_truncated_archive_is_refused(tmp_path, cut):
    path = write_tar(tmp_path, "cifar10")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=r"tar\.gz: (cannot be read|has no member)"):
        data.load("cifar10", data_dir=path.parent, verify=False)


def test_an_archive_without_a_member_is_refused(tmp_path):
    path = tmp_path / CIFAR10.archive
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(UserError, match="has no member data_batch_1"):
        data.load("cifar10", data_dir=tmp_path)
