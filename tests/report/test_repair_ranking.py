"""The order of methods, from made-up rows."""

from mcjax.report.repair_ranking import over_attacks, rank, ranking


def row(method, score, *, attack="square", seed=0, bonafide=100):
    return {
        "attack": attack,
        "method": method,
        "bonafide": bonafide,
        "seed": seed,
        "score": score,
        "accuracy_lost": 0.0,
        "attack_success_rate": 0.0,
        "clean_accuracy": 0.9,
    }


def test_the_best_method_comes_first_and_one_that_met_fewer_attacks_last():
    rows = [
        row("d3", 0.5),
        row("d3", 0.7, attack="wanet"),
        row("path", 0.8),
        row("path", 0.6, attack="wanet"),
        row("nad", 0.99),
        row("clp", 0.2, bonafide=0),
        row("clp", 0.3, attack="wanet", bonafide=0),
        row("path at the oracle's t", 1.0),
        row("suspect", 0.0, bonafide=0),
        row("clean twin", 0.9, bonafide=0),
    ]
    ranked = rank(rows)
    assert ranked.methods == ["path", "d3", "clp", "nad"]
    assert ranked.attacks == ["square", "wanet"]
    assert [len(ranked.of(name, 100)) for name in ranked.methods] == [2, 2, 2, 1]


def test_an_attack_with_more_seeds_weighs_no_more():
    square, warp = [row("d3", 0.2, seed=i) for i in range(3)], [row("d3", 0.8, attack="wanet")]
    found = over_attacks([square, warp], "score")
    assert (found.value, str(found)) == (0.5, "0.500")
    assert over_attacks([square, warp], "seconds") is None


def test_a_measure_that_an_attack_lacks_has_no_mean():
    square, warp = [row("d3", 0.2)], [row("d3", 0.8, attack="wanet")]
    square[0]["excess_10"] = 0.25
    assert over_attacks([square, warp], "excess_10") is None
    # Only the first seed of a run has a re-learning test.
    warp = [{**warp[0], "excess_10": 0.75}, row("d3", 0.8, attack="wanet", seed=1)]
    assert over_attacks([square, warp], "excess_10").value == 0.5


def test_a_method_that_met_fewer_attacks_has_rates_and_no_means():
    rows = [row("d3", 0.5), row("d3", 0.7, attack="wanet"), row("nad", 0.99)]
    tables = ranking([*rows, row("suspect", 0.0, bonafide=0)]).split("\n\n")
    assert [one.splitlines()[-1] for one in tables] == [
        "| nad |  |",
        "| nad |  |  |  |  |  |  |  |  |",
        "| nad | 0.900 / 0.000 |  |",
    ]
