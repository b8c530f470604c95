"""The output of a repair, from a made-up result: the page, the figure, the table."""

import dataclasses
import json

import numpy as np
import pytest
from made_runs import repaired

from mcjax.core.errors import UserError
from mcjax.report.definitions import meaning
from mcjax.report.repaired_page import NO_PROMISE, path_panels, what_happened, write_repaired
from mcjax.runs.checkpoint import restore_network
from mcjax.runs.workdir import read_csv


@pytest.mark.parametrize("t", [0.5, None])
def test_the_page_says_what_happened_and_what_is_not_promised(tmp_path, t):
    write_repaired(tmp_path, repaired(t), {"arch": "mlp", "seed": 0})
    text = (tmp_path / "report.html").read_text()
    assert NO_PROMISE[:40] in text
    chosen = "these, t = 0.5000 was chosen: accuracy 0.8000, estimated attack success 0.1250 (suspect: 1.0000)"
    assert (chosen in text) == (t is not None)
    assert "There is evidence of a backdoor: class 3 stands out most, by a patch" in text
    assert ("nothing was repaired" in text) == (t is None)
    assert "fraction of the norm" in text  # what moved_relative means
    assert "a patch that sends them to class 3. Below each, the difference" in text
    for name in ("path.png", "path.pdf", "triggers.png", "triggers.pdf"):
        assert (tmp_path / name).stat().st_size > 0
    table = read_csv(tmp_path / "path.csv")
    assert table["distance"] == [0, 2.5, 0]
    assert table["estimated_attack_success"] == [1, 0.125, 1]
    assert table["warp_success"] == [0.5, 0.25, 0.5]
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["t"] == t
    assert metrics["backdoor_found"] is True
    assert (metrics["patch_class"], metrics["patch_anomaly"]) == (3, 4.5)
    assert (metrics["patch_threshold"], metrics["warp_threshold"]) == (3.0, 2.5)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            "the suspect, taught",
            "so that t is the strength of the repair. Only the beginning counts",
        ),
        (
            "free, trained with the path",
            "was trained with it, so that only the beginning is suspect",
        ),
        ("the un-aligned copy of the suspect", "with its channels permuted, which is suspect too"),
        ("a fine-tuned copy of the suspect", "Such a path often keeps a backdoor"),
        ("given", "leads to the second network that was given"),
    ],
)
def test_the_page_says_where_the_path_leads(second, said):
    fixed = repaired(0.5)
    report = {**fixed.report, "second": second}
    assert any(said in text for text in what_happened(dataclasses.replace(fixed, report=report)))


def test_a_low_accuracy_is_doubted_first():
    fixed = repaired(0.5)
    low = dataclasses.replace(fixed, report={**fixed.report, "suspect_accuracy": 0.3})
    assert "gives only 30 % of your images their label" in what_happened(low)[0]
    assert "%" not in what_happened(fixed)[0]


def test_every_number_has_a_meaning():
    for name, value in repaired(0.5).report.items():
        assert isinstance(value, np.ndarray | dict | list) or meaning(name), name
    for name in ("patch_class", "warp_anomaly"):
        assert meaning(name)


def test_the_figure_marks_the_chosen_t_and_the_floor():
    accuracy, success, distance = path_panels(repaired(0.5))
    assert accuracy.chosen == success.chosen == distance.chosen == 0.5
    assert [line.label for line in success.lines] == ["estimated attack success", "patch", "warp"]
    np.testing.assert_allclose(accuracy.lines[2].y, 75)
    fixed = repaired(0.5)
    blind = dataclasses.replace(fixed, report={**fixed.report, "backdoor_found": False})
    assert [line.label for line in path_panels(blind)[1].lines] == ["patch", "warp"]
    assert path_panels(repaired(None))[0].chosen is None


def test_a_repair_is_saved_as_by_the_command(tmp_path):
    fixed = dataclasses.replace(repaired(0.5), variables={"params": {"w": np.arange(3.0)}})
    folder = fixed.save(tmp_path / "new" / "out")
    assert folder == tmp_path / "new" / "out"
    network, metadata = restore_network(folder / "repaired")
    np.testing.assert_array_equal(network["params"]["w"], np.arange(3.0))
    assert metadata["t"] == 0.5
    for name in ("report.html", "path.csv", "path.png", "result.json"):
        assert (folder / name).stat().st_size > 0
    with pytest.raises(UserError, match="exists; give a new folder, nothing is overwritten"):
        fixed.save(folder)


def test_without_a_repair_only_the_report_is_saved(tmp_path):
    folder = repaired(None).save(tmp_path / "out")
    assert not (folder / "repaired").exists()
    assert json.loads((folder / "result.json").read_text())["status"] == "no acceptable point"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can.t make .*; give another folder"):
        repaired(None).save(tmp_path / "file" / "out")


def test_in_a_notebook_a_repair_is_one_line():
    assert repr(repaired(0.5)) == (
        "Repaired(t=0.5000, accuracy=0.8000, suspect's 0.9000, estimated attack success=0.1250, "
        "evidence of a backdoor: yes)"
    )
