"""Strict JAX settings for every test, and eight CPU devices; or, by --accelerator, what there is."""

import jax
import matplotlib

matplotlib.use("Agg")


def pytest_addoption(parser):
    parser.addoption(
        "--accelerator",
        action="store_true",
        help="run the tests marked `accelerator`, on the device that JAX finds",
    )


def pytest_configure(config):
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if config.getoption("--accelerator"):
        # TF32, which a GPU takes for float32 by itself, would fail float32's tolerances.
        jax.config.update("jax_default_matmul_precision", "float32")
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--accelerator"):
        chosen = [item for item in items if item.get_closest_marker("accelerator")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
