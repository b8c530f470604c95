"""The page of a search for evidence, from a made-up result."""

import re

import pytest
from made_runs import repaired

from mcjax.report.evidence_page import how_sure, write_evidence


@pytest.mark.parametrize(("accuracy", "doubted"), [(0.3, True), (0.9, False)])
def test_a_low_accuracy_is_doubted_before_the_verdict(tmp_path, accuracy, doubted):
    report = {**repaired(0.5).report, "accuracy": accuracy, "num_images": 40}
    answer = write_evidence(tmp_path, report, {"arch": "mlp"})
    assert ("gives only 30 % of your images their label" in answer[0]) == doubted
    assert answer[int(doubted)].startswith("There is evidence of a backdoor: class 3")
    assert ("gives only 30 %" in (tmp_path / "report.html").read_text()) == doubted


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ("path", "36 of 40 tampered ones of digits .* the middle of a path"),
        ("away", "33 of 40 tampered ones of digits .* trained away from its own last layer"),
        ("", "36 of 40 tampered ones of digits .* This network has none \\(too few steps\\)"),
    ],
)
def test_the_rates_are_those_of_the_kind_of_control(control, said):
    report = {"control": control, "no_control": "" if control else "too few steps"}
    assert re.search(said, how_sure(report))
