"""The report finds what hides gradients, and nothing on an honest network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcjax
from mcjax.core.errors import UserError
from mcjax.evaluation.robustness_report import robustness_report

W = jax.random.normal(jax.random.key(0), (12, 4))
QUICK = {
    "num_steps": 20, "num_queries": 150, "pgd_num_steps": 20, "pgd_num_restarts": 2, "num_noise": 5,
}  # fmt: skip


def honest(x):
    return (x.reshape(len(x), -1) - 0.5) @ W


def masked(x):
    """The same answers but for ties; its gradient is zero everywhere."""
    return jnp.round(200 * honest(x)) / 200


def images(n=60):
    x = 0.5 + 0.1 * jax.random.normal(jax.random.key(2), (n, 2, 2, 3)).clip(-2, 2)
    return x, honest(x).argmax(1)


@pytest.fixture(scope="module")
def reports():
    x, y = images()
    key = jax.random.key(0)
    return {
        "honest": mcjax.robustness_report(key, honest, x, y, eps=0.03, **QUICK),
        "masked": robustness_report(
            key, masked, x, y, eps=0.03, other=honest, batch_size=40, **QUICK
        ),
    }


@pytest.mark.slow(compiles=True)
def test_nothing_speaks_against_an_honest_network(reports):
    report = reports["honest"]
    assert report.verdict == "no sign of masking"
    assert report.signs == ()
    assert report.transfer is None
    assert 0.1 < report.autoattack.robust_accuracy < 0.9
    assert report.autoattack.robust_accuracy <= min(report.pgd, report.apgd, report.square)
    assert report.square <= report.noise <= report.accuracy == 1
    values = list(report.accuracy_at.values())
    assert values == sorted(values, reverse=True)
    assert list(report.accuracy_at) == pytest.approx(
        [0, 0.0075, 0.015, 0.03, 0.06, 0.12, 0.24, 1.0]
    )
    assert values[0] == 1
    assert values[-1] == 0
    assert str(report).endswith("no sign of masking")


@pytest.mark.slow(compiles=True)
def test_the_signs_of_masked_gradients(reports):
    report = reports["masked"]
    text = report.verdict
    assert "Square fools" in text
    assert "transfer from the other network fools" in text
    assert "the gradient is zero at" in text
    assert "reaches the whole box" in text
    assert report.square < report.apgd - 0.1
    assert report.transfer < report.apgd - 0.1
    # The ensemble, which has Square, is not deceived as much.
    assert report.autoattack.robust_accuracy <= report.square + 0.02
    assert report.autoattack.zero_gradient_share > 0.9
    lines = str(report).splitlines()
    assert f"transfer: {report.transfer:.4f}" in lines
    assert np.isclose(float(lines[0].split()[-1]), report.accuracy, atol=1e-4)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"eps": 0.0}, "eps is 0; give the radius"),
        ({"eps": jnp.full(60, 0.1)}, "give a single number"),
        ({"norm": "l7"}, "unknown norm"),
        ({"num_noise": 0}, "num_noise"),
        ({"pgd_num_restarts": 0}, "pgd_num_restarts"),
    ],
)
def test_mistakes(bad, match):
    x, y = images()
    with pytest.raises(UserError, match=match):
        robustness_report(jax.random.key(0), honest, x, y, **{"eps": 0.1, **bad})
