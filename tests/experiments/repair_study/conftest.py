"""A study of two untrained networks, opened once per file of tests."""

import jax
import pytest

from mcjax.core.sharding import make_mesh
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.repair_study.tampered import Tampered
from mcjax.runs import config as base
from mcjax.runs.run import open_run


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = base.quick(base.backdoor())
    config.model.name = "mlp"
    config.repair.sizes = (32, 16)
    config.evaluation.num_points = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
        run = open_run(config, tmp_path_factory.mktemp("study"))
    start, end = (
        {"batch_stats": {}, **run.network.init(run.key(name))} for name in ("suspect", "second")
    )
    test = {name: value[:8] for name, value in run.splits.test.items()}
    return Study(run, Tampered("attack_success_rate", test, start, end, (0, -1), {}))
