"""A study's cases: what a method sees, and that a run's stages compute what the library computes."""

import dataclasses
import hashlib

import jax
import numpy as np
import pytest

from mcjax.core.sharding import make_mesh
from mcjax.core.tree import digest
from mcjax.experiments.repair_study import table
from mcjax.experiments.repair_study.rows import rows_of
from mcjax.experiments.repair_study.study import Study, Tampered
from mcjax.repair.methods import METHODS
from mcjax.runs import config as base
from mcjax.runs.run import open_run
from mcjax.training.fit import fit

SIZES = (32, 16)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = base.quick(base.backdoor())
    config.model.name = "mlp"
    config.repair.sizes = SIZES
    config.evaluation.num_points = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
        run = open_run(config, tmp_path_factory.mktemp("study"))
    start, end = (
        {"batch_stats": {}, **run.network.init(run.key(name))} for name in ("suspect", "second")
    )
    test = {name: value[:8] for name, value in run.splits.test.items()}
    return Study(run, Tampered("attack_success_rate", test, start, end, (0, -1), {}))


def hashes(image):
    return {hashlib.sha256(np.asarray(one).tobytes()).digest() for one in image}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", METHODS)
def test_no_method_sees_a_test_image(name, size, study):
    splits = study.run.splits
    case = study.case(name, size)
    bonafide = hashes(splits.bonafide["image"])
    assert hashes(case.bonafide["image"]) <= bonafide
    assert len(case.bonafide["label"]) == size
    assert hashes(case.images["image"]) == hashes(case.bonafide["image"])
    assert hashes(case.selection["image"]) == hashes(splits.selection["image"])
    assert not hashes(splits.test["image"]) & (bonafide | hashes(case.selection["image"]))


def test_what_uses_no_images_draws_the_same_at_every_size(study):
    keys = {
        name: {str(study.case(name, size).key_fn(name)) for size in SIZES}
        for name in ("noise", "path")
    }
    assert [len(keys[name]) for name in ("noise", "path")] == [1, 2]


@pytest.mark.parametrize("name", ["path", "fine_tune", "i_bau"])
def test_a_stage_computes_what_the_library_computes(name, study, monkeypatch):
    found, _ = study.repaired(name, 16)
    alone = dataclasses.replace(study.case(name, 16), fit_fn=fit)
    assert digest(METHODS[name].run(alone)) == digest(found)
    again = dataclasses.replace(METHODS[name], run=lambda case: pytest.fail("computed again"))
    monkeypatch.setitem(METHODS, name, again)
    assert digest(study.repaired(name, 16)[0]) == digest(found)


def test_rows_of_a_path(study):
    chosen, low, middle, best = rows_of(study, "path", 32)
    assert [chosen.method, best.method] == ["path", "path at the oracle's t"]
    assert [low.t, middle.t] == [0.0, 0.5]  # of three points, those nearest to 0.1 and 0.5
    t = list(chosen.path["t"])
    assert chosen.t == (0.0 if chosen.choice.index is None else t[chosen.choice.index])
    for row in (chosen, low, middle, best):
        for column, value in row.values.items():
            assert value == chosen.path[column][t.index(row.t)]


def test_methods_without_images_run_once_unless_their_end_is_made_from_images(study):
    def sizes(one, name):
        return [size for size, repair in table.repairs(one) if repair.method.startswith(name)]

    study.run.config.repair.methods = ("path", "line")
    assert set(sizes(study, "line")) == {0}
    assert set(sizes(study, "path")) == set(SIZES)
    made = dataclasses.replace(study, tampered=dataclasses.replace(study.tampered, end=None))
    assert set(sizes(made, "line")) == set(SIZES)
