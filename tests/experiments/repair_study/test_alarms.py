"""The sentence about inverted triggers, over seeds and networks."""

from mcjax.experiments.repair_study.alarms import sentences


def row(network, seed, form, evident, of_class=1, bonafide=50):
    return {
        "network": network, "bonafide": bonafide, "seed": seed, "form": form, "class": of_class,
        "evident": evident,
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
        "Triggers inverted with 50 bonafide images are evidence of a backdoor in 2 of 2 suspects "
        "(class 1, 3) and 1 of 2 clean twins (class 5)."
    ]


def test_one_sentence_per_number_of_images():
    found = [row("suspect", 0, "patch", 1), row("suspect", 0, "patch", 0, bonafide=20)]
    first, second = sentences(found)
    assert "with 50 bonafide images" in first
    assert "1 of 1 suspects (class 1)" in first
    assert "with 20 bonafide images" in second
    assert second.endswith("0 of 1 suspects.")


def test_nothing_without_evidence():
    assert sentences([]) == []
