import json

import numpy as np
import pytest
from image_files import COLOURS, LABELS, NAMES, table

from mcjax.core.errors import UserError
from mcjax.data.examples import read_examples

pa = pytest.importorskip("pyarrow")


def save_to_disk(path, whole, *, parts=2, recorded=True):
    """As `datasets.Dataset.save_to_disk` does: streams, and the order of the files in state.json."""
    path.mkdir(parents=True)
    names = [f"data-{i:05}-of-{parts:05}.arrow" for i in range(parts)]
    size = whole.num_rows // parts
    for i, name in enumerate(names):
        part = whole.slice(i * size, size)
        with pa.ipc.new_stream(str(path / name), part.schema) as out:
            out.write_table(part)
    state = {"_data_files": [{"filename": n} for n in names], "_fingerprint": "0"}
    (path / "state.json").write_text(json.dumps(state))
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}} if recorded else {}
    (path / "dataset_info.json").write_text(json.dumps({"features": features}))
    return path


def refusal(path):
    with pytest.raises(UserError) as refused:
        read_examples(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("metadata", [True, False])
def test_a_data_set(tmp_path, metadata):
    whole = table() if metadata else table().replace_schema_metadata(None)
    found = read_examples(save_to_disk(tmp_path / "set", whole))
    np.testing.assert_array_equal(found.examples["image"], COLOURS)
    np.testing.assert_array_equal(found.examples["label"], LABELS)
    assert found.class_names == tuple(NAMES)


def test_the_order_of_the_files_is_that_of_the_state(tmp_path):
    path = save_to_disk(tmp_path / "set", table())
    state = json.loads((path / "state.json").read_text())
    state["_data_files"].reverse()
    (path / "state.json").write_text(json.dumps(state))
    found = read_examples(path).examples["label"]
    np.testing.assert_array_equal(found, LABELS[3:] + LABELS[:3])


def test_splits(tmp_path):
    save_to_disk(tmp_path / "train", table())
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert len(read_examples(tmp_path).examples["label"]) == 6
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    message = refusal(tmp_path)
    assert "several splits" in message
    assert str(tmp_path / "test") in message


def test_one_file_as_stream_or_with_an_index(tmp_path):
    whole, file = table(), tmp_path / "x.arrow"
    for new in (pa.ipc.new_stream, pa.ipc.new_file):
        with new(str(file), whole.schema) as out:
            out.write_table(whole)
        np.testing.assert_array_equal(read_examples(file).examples["label"], LABELS)


def test_damaged_data_sets(tmp_path):
    path = save_to_disk(tmp_path / "set", table(), parts=1)
    (path / "data-00000-of-00001.arrow").write_bytes(b"nothing")
    assert "not a readable Arrow file" in refusal(path)
    (path / "data-00000-of-00001.arrow").unlink()
    assert "no such file" in refusal(path)
    (path / "state.json").write_text("{}")
    assert "state.json is damaged" in refusal(path)
    (path / "state.json").write_text("{")
    assert "can't be read" in refusal(path)
