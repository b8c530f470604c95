"""Networks trained side by side are those trained one by one, and survive a kill as these do."""

import json

import jax
import numpy as np
import pytest
from slow import SLOW

from mcjax.core.errors import UserError
from mcjax.experiments.stages import endpoints
from mcjax.experiments.stages import training as fit
from mcjax.runs import config as base
from mcjax.runs.checkpoint import exists, restore
from mcjax.runs.run import open_run, with_seed
from mcjax.training.objectives import endpoint_loss


def opened(workdir, **changes):
    config = base.quick(base.evasion())
    config.model.name = "mlp"
    config.update_from_flattened_dict(changes)
    run = open_run(config, workdir)
    return run, [with_seed(run, seed) for seed in (0, 1)]


def train_both(workdir, **changes):
    run, parts = opened(workdir, **{"run.side_by_side": True, **changes})
    networks = [(part, name) for part in parts for name in ("regular_a", "regular_b")]
    loss_fn = endpoint_loss(run.network)
    endpoints.train_side_by_side(networks, lambda part: part.on_device["train"], loss_fn)
    return run, networks


def assert_equal_to_alone(workdir, networks, tmp_path):
    run, parts = opened(tmp_path)
    for part in parts:
        for name in ("regular_a", "regular_b"):
            images, loss_fn = part.on_device["train"], endpoint_loss(run.network)
            alone = endpoints.train_network(part, name, images, loss_fn)
            stage = part.part + name
            together = restore(workdir / "checkpoints" / stage, alone)[0]
            for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow(compiles=True)
def test_two_seeds_of_two_networks_at_once(tmp_path):
    run, networks = train_both(tmp_path / "together")
    assert_equal_to_alone(run.workdir, networks, tmp_path / "alone")
    rows = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    stages = [part.part + name for part, name in networks]
    assert sorted({row["stage"] for row in rows}) == sorted(stages)
    assert len({row["loss"] for row in rows}) == len(rows)
    assert not list((run.workdir / "checkpoints").glob(".partial/**/[0-9]*"))


@SLOW
def test_cut_in_the_middle_they_go_on(tmp_path, monkeypatch):
    class CutError(Exception):
        pass

    def cut_after(folder, state, **metadata):
        save_partial(folder, state, **metadata)
        raise CutError

    save_partial = fit.save_partial
    monkeypatch.setattr(fit, "save_partial", cut_after)
    with pytest.raises(CutError):
        train_both(tmp_path / "cut", **{"run.checkpoint_seconds": 1e-6})
    monkeypatch.undo()
    run, networks = train_both(tmp_path / "cut")
    whole, _ = train_both(tmp_path / "whole")
    for part, name in networks:
        a, b = (restore(one.checkpoint(part.part + name))[0] for one in (run, whole))
        jax.tree.map(np.testing.assert_array_equal, a, b)
    lines = [(one.workdir / "metrics.jsonl").read_text().splitlines() for one in (run, whole)]
    assert sorted(lines[0]) == sorted(lines[1])


def test_without_the_option_nothing_is_done_at_once(tmp_path):
    run, networks = train_both(tmp_path, **{"run.side_by_side": False})
    assert not any(exists(run.checkpoint(part.part + name)) for part, name in networks)


def test_both_options_at_once(tmp_path):
    with pytest.raises(UserError, match="use one of them"):
        opened(tmp_path, **{"run.side_by_side": True, "run.data_parallel": True})


def test_a_batch_that_can_not_be_divided(tmp_path):
    run, parts = opened(tmp_path, **{"run.data_parallel": True, "endpoint.batch_size": 12})
    with pytest.raises(UserError, match="a batch of 12 images can't be divided evenly among 8"):
        endpoints.train_network(
            parts[0], "regular_a", parts[0].on_device["train"], endpoint_loss(run.network)
        )
