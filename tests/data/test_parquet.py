import numpy as np
import pytest
from image_files import COLOURS, GREYS, LABELS, NAMES, table

from mcjax.core.errors import UserError
from mcjax.data.examples import read_examples

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def refusal(path):
    with pytest.raises(UserError) as refused:
        read_examples(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("images", [COLOURS, GREYS], ids=["RGB", "grey"])
def test_one_file(tmp_path, images, plain):
    parquet.write_table(table(images, plain=plain), tmp_path / "x.parquet")
    found = read_examples(tmp_path / "x.parquet")
    np.testing.assert_array_equal(found.examples["image"], images)
    np.testing.assert_array_equal(found.examples["label"], LABELS)
    assert found.class_names == tuple(NAMES)


def test_other_names_of_the_columns(tmp_path):
    parquet.write_table(table(image="img", label="fine_label"), tmp_path / "x.parquet")
    np.testing.assert_array_equal(read_examples(tmp_path / "x.parquet").examples["label"], LABELS)


def test_labels_as_names(tmp_path):
    words = ["b", "a", "c", "b", "a", "c"]
    parquet.write_table(table(labels=words), tmp_path / "x.parquet")
    found = read_examples(tmp_path / "x.parquet")
    assert found.class_names == ("a", "b", "c")
    assert found.examples["label"].tolist() == [1, 0, 2, 1, 0, 2]


def test_a_folder_and_a_pattern(tmp_path):
    whole = table()
    for split, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        rows = whole.slice(part.start, part.stop - part.start)
        for i in range(2):
            half = rows.slice(i * rows.num_rows // 2, rows.num_rows // 2)
            parquet.write_table(half, tmp_path / f"{split}-0000{i}-of-00002.parquet")
    message = refusal(tmp_path)
    assert "several splits" in message
    assert str(tmp_path / "train-*.parquet") in message
    found = read_examples(tmp_path / "train-*.parquet").examples
    np.testing.assert_array_equal(found["image"], COLOURS[:4])
    for file in tmp_path.glob("test-*"):
        file.unlink()
    np.testing.assert_array_equal(read_examples(tmp_path).examples["label"], LABELS[:4])


def test_damaged_files(tmp_path):
    file = tmp_path / "x.parquet"
    assert "no such file" in refusal(file)
    file.write_bytes(b"PAR1 no more")
    assert "not a readable Parquet file" in refusal(file)
    parquet.write_table(table(label="truth"), file)
    assert "no column label (it has image, truth)" in refusal(file)
    parquet.write_table(table(labels=[0, 1, 2, 0, 1, -1]), file)
    assert "the label of image 5 is -1" in refusal(file)
    cells = [{"bytes": None, "path": "a.png"}, {"bytes": b"zz", "path": "b.png"}]
    parquet.write_table(pa.table({"image": cells, "label": [0, 1]}), file)
    message = refusal(file)
    assert "row 0, a.png (no bytes)" in message
    assert "row 1, b.png (not an image)" in message
    parquet.write_table(pa.table({"image": [[1, 2], [3]], "label": [0, 1]}), file)
    assert "give the bytes of image files" in refusal(file)
