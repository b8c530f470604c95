"""Both sides of the benchmark compute the same numbers. Skipped where torch is absent."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra bench is not installed")

from benchmarks import inputs, mcjax_work, torch_work
from mcjax import cpu_convolution


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    from mcjax.core.sharding import make_mesh

    monkeypatch.setattr("mcjax.evaluation.path.make_mesh", lambda: make_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return lambda name: inputs.write_inputs(name, folder, num_images=128)


def test_both_use_the_same_settings():
    for name in (
        "BATCH_SIZE",
        "WEIGHT_DECAY",
        "LEARNING_RATE",
        "MOMENTUM",
        "T",
        "EPS",
        "STEP_SIZE",
    ):
        assert getattr(inputs, name) == getattr(torch_work, name)
    assert mcjax_work.EVALUATION_BATCH == torch_work.EVALUATION_BATCH


@pytest.mark.slow
def test_equal_results(file):
    name = "preresnet26"  # each run of the benchmark compares those that it times
    inputs_file = file(name)
    ours = mcjax_work.prepare(name, inputs_file, "mcjax")
    variants = [torch_work.prepare(name, inputs_file, v) for v in ("eager", "channels_last")]
    losses, point = ours["step"](2)["losses"], ours["point"](0)
    for theirs in variants:
        np.testing.assert_allclose(losses, theirs["step"](2)["losses"], rtol=2e-4)
        b = theirs["point"](0)
        np.testing.assert_allclose(point["loss"], b["loss"], rtol=2e-4)
        np.testing.assert_allclose(point["accuracy"], b["accuracy"], atol=0.01)
    a, b = (
        mcjax_work.loss_at(name, inputs_file, side["pgd"](0)["images"])
        for side in (ours, variants[0])
    )
    np.testing.assert_allclose(a, b, rtol=0.02)
    cpu_convolution.disable()
