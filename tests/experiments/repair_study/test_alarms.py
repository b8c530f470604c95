"""The sentence about inverted triggers, over seeds and networks."""

from mcjax.experiments.repair_study.alarms import sentences


def row(network, seed, form, evident, of_class=1, bonafide=50):
    return {
        "network": network, "bonafide": bonafide, "seed": seed, "form": form, "class": of_class,
        "attacked_class": 1, "evident": evident,
    }  # fmt: skip


def test_counts_networks_and_not_forms():
    """A network counts by its first row, the form that says most."""
    found = [
        row("suspect", 0, "patch", 1),
        row("suspect", 0, "warp", 1, of_class=7),
        row("clean twin", 0, "warp", 0),
        row("suspect", 1, "warp", 1, of_class=3),
        row("clean twin", 1, "patch", 1, of_class=5),
        row("clean twin", 1, "warp", 0),
    ]
    assert sentences(found) == [
        "With 50 bonafide images, inverted triggers speak for a backdoor in 2 of 2 suspects "
        "(class 1, 3; the attacker's is 1) and 1 of 2 clean twins (class 5)."
    ]


def test_one_sentence_per_number_of_images():
    found = [row("suspect", 0, "patch", 1), row("suspect", 0, "patch", 0, bonafide=20)]
    first, second = sentences(found)
    assert first.startswith("With 50 bonafide images")
    assert "1 of 1 suspects (class 1)" in first
    assert second.startswith("With 20 bonafide images")
    assert second.endswith("0 of 1 suspects.")


def test_folds_are_not_networks():
    found = [{**row("suspect", 0, "patch", 1), "fold": fold} for fold in (0, 1)]
    assert sentences(found)[0].endswith("2 of 2 folds with the suspect (class 1).")


def test_several_attacked_classes_have_none_to_compare_with():
    found = [{**row("suspect", 0, "patch", 1, of_class=4), "attacked_class": ""}]
    assert sentences(found)[0].endswith("1 of 1 suspects (class 4).")


def test_nothing_without_evidence():
    assert sentences([]) == []
