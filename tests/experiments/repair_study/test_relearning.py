"""The re-learning test of a study: which images it uses, and that it is off by default."""

import hashlib

import jax
import numpy as np
import pytest

from mcjax.attacks.poisoning import triggers
from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh
from mcjax.experiments.repair_study import relearning
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.repair_study.tampered import Tampered
from mcjax.runs import config as base
from mcjax.runs.run import open_run, with_seed

STAMP = triggers.create("square", (8, 8, 1))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
    config = base.quick(base.backdoor())
    config.model.name = "mlp"
    config.explain.relearn_images = (1, 5)
    return with_seed(open_run(config, tmp_path), 0)


def hashes(image):
    return [hashlib.sha256(np.asarray(one).tobytes()).digest() for one in image]


@pytest.mark.parametrize("label_map", ["single_target", "all_to_all", "clean_label"])
def test_poisoned_images_are_stamped_training_images(label_map, run):
    run.config.attack.label_map = label_map
    found = relearning.poisoned_images(run, STAMP, 0)
    assert len(found["label"]) == 5
    patch = STAMP.scale == 0
    assert (found["image"][:, patch] == 1).all()

    def others(part):  # the images where the trigger is not, and their labels
        return {
            h: int(y) for h, y in zip(hashes(part["image"][:, ~patch]), part["label"], strict=True)
        }

    train, test = others(run.splits.train), others(run.splits.test)
    for image, label in zip(hashes(found["image"][:, ~patch]), found["label"], strict=True):
        assert image not in test
        y = train[image]
        wanted = {"single_target": 1, "all_to_all": (y + 1) % 10, "clean_label": y}[label_map]
        assert label == wanted
        assert (y == 1) == (label_map == "clean_label") or label_map == "all_to_all"


def test_draws_differ_and_smaller_tests_use_the_same_images(run):
    a, b, again = (relearning.poisoned_images(run, STAMP, draw) for draw in (0, 1, 0))
    np.testing.assert_array_equal(a["image"], again["image"])
    assert set(hashes(a["image"])) != set(hashes(b["image"]))
    run.config.explain.relearn_images = (2,)
    np.testing.assert_array_equal(
        relearning.poisoned_images(run, STAMP, 0)["image"], a["image"][:2]
    )


def test_too_many_images(run):
    run.config.explain.relearn_images = (1, 5000)
    with pytest.raises(UserError, match="asks for 5000 poisoned images, but the attacker has"):
        relearning.check_relearning(run, STAMP)


def test_off_by_default(run):
    run.config.explain.relearn_images = base.backdoor().explain.relearn_images
    study = Study(run, Tampered("attack_success_rate", {}, {}, {}, (0, -1), {}))
    relearning.write_relearning(study, STAMP)  # touches no network
    assert not (run.workdir / "figures" / "relearning.csv").exists()


def test_excess_by_hand(run):
    run.config.explain.relearn_images = (1, 5)
    study = Study(run, Tampered("rate", {}, {}, {}, (0, -1), {}))
    before = {"success_accuracy": np.array([0.9, 0.0]), "test_accuracy": np.array([0.8, 0.7])}
    after = [
        {"success_accuracy": np.array([1.0, 0.5]), "test_accuracy": np.array([0.8, 0.6])},
        {"success_accuracy": np.array([1.0, 0.75]), "test_accuracy": np.array([0.5, 0.4])},
    ]
    rows = relearning.rows_of(study, before, after, [0.25, 0.5])
    assert [row["m"] for row in rows] == [1, 1, 5, 5]
    assert [row["rate_before"] for row in rows] == [0.9, 0.0, 0.9, 0.0]
    assert [row["excess"] for row in rows] == [0.75, 0.25, 0.5, 0.25]
    assert [row["clean_accuracy_after"] for row in rows] == [0.8, 0.6, 0.5, 0.4]
