"""A tiny finished run of each experiment, computed once for all tests and all of pytest-xdist's workers."""

import fcntl

import jax
import pytest

from mcjax import experiments
from mcjax.core.sharding import make_mesh
from mcjax.runs import config as base

STUDY = {"repair.methods": ("path", "fine_tune"), "repair.sizes": (16,)}
CHANGES = {
    "connect": {"evaluation.plane_points": 0},
    "backdoor": {
        **STUDY,
        "repair.methods": ("path", "line", "fine_tune"),
        "curve.align": "weights",
    },
    "injection": {**STUDY, "attack.num_faults": 2},
    "evasion": {
        "pairs": ("regular-adversarial",),
        "curve.align": "weights",
        "autoattack.num_points": 0,
    },
}


def config(name, **changes):
    """An experiment's config, with images and steps so few that compiling takes the most time."""
    config = base.quick(getattr(base, name)())
    config.model.name = "mlp"
    config.run.cpu_convolution = False  # its programs take longer to compile than these steps
    config.update_from_flattened_dict(CHANGES[name] | changes)
    return config


def run(name, workdir, **changes):
    """The experiment on one device; returns its result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
        return experiments.get(name)(config(name, **changes), workdir)


def finished(name, tmp_path_factory):
    """The folder of the finished run, to be read and copied but not changed."""
    folder = tmp_path_factory.getbasetemp()
    if folder.name.startswith("popen-"):  # a worker's own; its parent is shared
        folder = folder.parent
    (folder / "runs").mkdir(exist_ok=True)
    with (folder / "runs" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        workdir = folder / "runs" / name
        if not (workdir / "result.json").exists():
            run(name, workdir)
    return workdir
