"""The page of the comparison with PyTorch."""

from benchmarks import report


def test_the_limit_is_the_days_fastest_product_on_the_machine():
    """Other programs slow a single row's product, never the machine."""
    row = {"cpu": "a", "date": "2026-01-01", "versions": {"jax": "1"}, "limit_gflops": 100.0}
    rows = [
        row,
        {**row, "limit_gflops": 200.0},
        {**row, "cpu": "b", "limit_gflops": 300.0},
        {**row, "date": "2026-01-02", "limit_gflops": 400.0},
    ]
    assert report._limit(row, rows) == 200


def test_the_fastest_tuned_variant_is_named():
    row = {"seconds": {"mcjax": 1.0, "eager": 0.5, "channels_last": 3.0, "compiled": 2.0}}
    assert report.tuned(row) == "compiled"
    assert report.tuned({"seconds": {"mcjax": 1.0, "eager": 0.5}}) is None
