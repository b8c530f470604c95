"""The counted work of a backdoor run: by hand, from the program, and compared with a real run."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.core.operation_counts import count
from mcjax.experiments import backdoor
from mcjax.experiments.repair_study import explain, judge, study, table
from mcjax.experiments.stages import endpoints
from mcjax.models.network import from_linen
from mcjax.repair.methods import i_bau
from mcjax.runs import config as base
from mcjax.runs.run import open_run
from mcjax.sweeps import counted_work


def paper_config():
    config = base.backdoor()
    config.data.name = "cifar10"
    config.data.num_bonafide = 2500
    config.data.num_selection = 1000
    config.model.name = "vgg"
    config.model.options.depth = 16
    config.endpoint.num_epochs = 100.0
    config.endpoint.batch_size = 128
    config.repair.sizes = (2500, 1000, 500, 250, 50)
    config.repair.num_epochs = 100.0
    config.repair.steps_per_epoch = 79
    config.repair.batch_size = 128
    config.evaluation.batch_size = 1000
    return config


def images(stages, name):
    """The images of all steps of a stage."""
    (stage,) = (s for s in stages if s.name == name)
    return round(stage.num_steps * stage.images)


def test_the_papers_run_by_hand():
    stages = counted_work.stages(paper_config(), has_batch_stats=True)
    steps = {s.name: s.num_steps for s in stages}
    assert steps["two networks and a twin"] == 3 * 36_328  # 100 * 46,500 / 128
    for name in ("path", "fine_tune", "scratch", "prune", "fine_prune"):
        assert steps[f"train {name}"] == 5 * 7_900
    # The sizes are repeated to their least common multiple, 5,000: 39 batches per round.
    assert steps["train i_bau"] == 5 * 100 * 39
    assert steps["ascents of i_bau"] == 5 * 100 * 10
    judged = 1_000 + 10_000 + 9_000
    bonafide = 2_500 + 1_000 + 500 + 250 + 50
    assert images(stages, "61 points of each path") == 61 * (5 * (judged + 2_500) + bonafide)
    assert images(stages, "61 points of each line") == 61 * (judged + 2_500 + 2_500)
    assert images(stages, "noise") == 40 * (judged + 2_500)
    assert images(stages, "other networks") == (3 + 5 * 5) * judged
    assert images(stages, "search of fine_prune") == bonafide + 5 * 65 * 1_000


def test_the_searches_for_evidence_by_hand():
    config = base.one_suspect()
    config.repair.methods = ("taught_path", "taught_fine_tune", "d3")
    config.repair.sizes = (500, 250)
    stages = counted_work.stages(config, has_batch_stats=False)
    steps = 2 * 5 * 200  # sizes, forms, steps
    assert (
        images(stages, "inversion of triggers") == steps * 2 * 16 * 10
    )  # restarts, batch, classes
    # Before the second round of each taught method, for one class of each form.
    assert images(stages, "inversion anew") == 2 * steps * 2 * 16
    assert images(stages, "train control") == 2 * 1_000 * 64
    (control,) = (one for one in stages if one.name == "train control")
    (curve,) = (one for one in stages if one.name == "train taught_path")
    assert control.weight_passes == curve.weight_passes  # the control is a path, too


def test_what_is_tuned_costs_its_trainings():
    config = base.one_suspect()
    config.repair.methods = ("taught_line", "taught_fine_tune", "d3", "ft_sam")
    config.repair.sizes = (500, 250)
    tuned = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    config.repair.tune = False
    plain = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    ratio = {name: tuned[name].num_steps / plain[name].num_steps for name in tuned}
    assert ratio["train d3"] == 3.5  # a half, and all three times
    assert ratio["train ft_sam"] == 4
    assert ratio["train taught_fine_tune"] == 1
    # The suspect and so on are 3; 3 networks at 2 sizes, of which two methods have 4 instead of 1.
    assert ratio["other networks"] == (3 + 2 * (1 + 4 + 4)) / (3 + 2 * 3)

    # A second end that is fine-tuned is one training.
    config.repair.tune, config.repair.pair = True, "tampered_and_fine_tuned"
    end = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    assert end["train fine_tune"].num_steps * 3.5 == end["train d3"].num_steps


def test_without_batch_norm_nothing_is_recomputed():
    stages = counted_work.stages(paper_config(), has_batch_stats=False)
    assert images(stages, "noise") == 40 * 20_000
    assert images(stages, "61 points of each path") == 61 * 5 * 22_500


def test_other_attackers_pairs_and_seeds():
    plain = {s.name: s for s in counted_work.stages(paper_config(), has_batch_stats=False)}
    config = paper_config()
    config.attack.attacker = "path_aware"
    aware = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    assert set(aware) - set(plain) == {"the attacker's curve"}
    curve = aware["the attacker's curve"]
    assert curve.num_steps == 14_531  # 40 * 46,500 / 128
    assert curve.weight_passes == aware["train path"].weight_passes  # a curve, not a network
    assert curve.weight_passes > aware["train fine_tune"].weight_passes

    config = paper_config()
    config.attack.label_map = "all_to_all"
    stages = counted_work.stages(config, has_batch_stats=False)
    assert images(stages, "noise") == 40 * 21_000  # every image is attacked

    config = paper_config()
    config.repair.pair = "tampered_and_fine_tuned"
    config.repair.methods = ("path", "line")
    stages = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    assert stages["two networks and a twin"].num_steps == 2 * 36_328
    assert stages["train fine_tune"].num_steps == 5 * 7_900
    assert images(stages.values(), "61 points of each line") == 61 * 5 * 22_500

    config = paper_config()
    config.seeds = (0, 1, 2)
    three = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    assert three["train path"].num_steps == 3 * plain["train path"].num_steps
    assert three["surroundings"] == plain["surroundings"]  # for the first seed only


def test_what_is_off_by_default_is_counted_where_it_is_on():
    config = paper_config()
    before = {s.name for s in counted_work.stages(config, has_batch_stats=False)}
    config.explain.relearn_images = (1, 10)
    config.repair.renormalise = True
    stages = counted_work.stages(config, has_batch_stats=False)
    added = {s.name: s for s in stages if s.name not in before}
    # 11 points, 3 networks and 7 methods; 2 numbers of images, 3 draws, 100 steps
    assert added["re-learning"].num_steps == 21 * 2 * 3 * 100
    assert images(stages, "re-learned networks") == 21 * 7 * 19_000
    # VGG16 has 15 hidden layers: 8 forward passes on the bonafide images of each size.
    one = 5 * (20_000 + 2_500) + 8 * 4_300
    assert images(stages, "61 renormalised points of each path") == 61 * one
    assert len(added) == 4


def test_the_passes_of_i_bau_are_those_of_its_program():
    network = from_linen(models.create("cnn", num_classes=10), (8, 8, 1))
    variables = {"batch_stats": {}, **jax.eval_shape(network.init, jax.random.key(0))}
    examples = {
        "image": jax.ShapeDtypeStruct((40, 8, 8, 1), jnp.uint8),
        "label": jax.ShapeDtypeStruct((40,), jnp.int32),
    }
    opt_state = jax.eval_shape(optax.adam(1.0).init, variables["params"])
    one = count(network.apply, variables, jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32))

    def passes(num_inner, num_fixed_point):
        def run(key, variables, opt_state, examples):
            return i_bau._round(
                *(key, variables, opt_state, examples, 3.0, 0.1, 0.5, 1e-3),
                network=network,
                num_inner=num_inner,
                num_fixed_point=num_fixed_point,
                batch_size=4,
            )

        arguments = (jax.random.key(0), variables, opt_state, examples)
        return count(run, *arguments).operations / one.operations

    assert passes(11, 5) - passes(10, 5) == pytest.approx(i_bau.ASCENT_PASSES, rel=0.02)
    for terms in (2, 5):
        descents = passes(10, terms) - 10 * i_bau.ASCENT_PASSES
        # 10 batches of 4; the first layer's input gradients, which not every pass needs, are small.
        assert descents / 10 == pytest.approx(i_bau.descent_passes(terms), rel=0.05)


@pytest.mark.slow(compiles=True)
def test_a_run_asks_for_what_was_counted(tmp_path, monkeypatch):
    """The stages of a run whose trainings and evaluations only record their arguments."""
    config = base.quick(base.backdoor())
    config.model.name = "mlp"
    config.repair.methods = ("path", "line", "fine_tune", "scratch", "noise")
    config.evaluation.batch_size = 50
    steps, looks = collections.Counter(), collections.Counter()

    def train_stage(run, name, key, training, **_):
        stage = name.split("/")[-1].rstrip("0123456789").rstrip("_")
        steps[stage] += training.budget.num_steps
        return {"params": training.params, "batch_stats": training.batch_stats}

    def path_stage(run, name, curve, ts, sets, **_):
        stage = name.split("/")[-1].rstrip("0123456789").rstrip("_")
        looks[stage] += len(ts) * sum(batches["mask"].size for batches in sets.values())
        metrics = ("loss", "accuracy", "target", "cosine")
        return {f"{part}_{metric}": np.ones(len(ts)) for part in sets for metric in metrics}

    for module in (endpoints, study):
        monkeypatch.setattr(module, "train_stage", train_stage)
    for module in (judge, explain):
        monkeypatch.setattr(module, "path_stage", path_stage)
    run = open_run(config, tmp_path)
    stamp = backdoor.trigger(run)
    one = study.Study(run, backdoor.tamper(run, stamp))
    list(table.repairs(one))
    explain.explain(one, stamp)

    monkeypatch.setitem(counted_work.DATA, "fake:digits", ((8, 8, 1), 10, 800, 400))
    counted = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    networks = sum(steps.pop(name) for name in ("clean_twin", "endpoint_a", "endpoint_b"))
    assert counted["two networks and a twin"].num_steps == networks
    assert {name: counted[f"train {name}"].num_steps for name in steps} == steps
    assert set(steps) == {"path", "fine_tune", "scratch"}
    # Batches are padded, and a tenth of the attacked images is of the target class.
    near = {"rel": 0.2}
    assert images(counted.values(), "3 points of each path") == pytest.approx(looks["path"], **near)
    assert images(counted.values(), "3 points of each line") == pytest.approx(looks["line"], **near)
    noise = looks["noise at t = 0"] + looks["noise at t = 1"]
    assert images(counted.values(), "noise") == pytest.approx(noise, **near)
    others = looks["references"] + looks["fine_tune"] + looks["scratch"]
    assert images(counted.values(), "other networks") == pytest.approx(others, **near)
    around = looks["surroundings"]
    assert images(counted.values(), "surroundings") == pytest.approx(around, **near)
    # An input gradient is two passes, and there are two: of the clean and of the stamped image.
    gradients = 4 * looks["gradients"]
    assert images(counted.values(), "input gradients") == pytest.approx(gradients, **near)


def test_an_input_aware_trigger_adds_the_training_of_its_generator():
    config = paper_config()
    plain = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    config.attack.trigger = "input_aware:cover=0.1"
    found = {s.name: s for s in counted_work.stages(config, has_batch_stats=False)}
    generator = found.pop("the trigger's generator")
    assert found == plain
    assert generator.num_steps == plain["two networks and a twin"].num_steps / 3


def test_a_family_is_judged_at_all_its_values(monkeypatch):
    """Without new statistics, which are recomputed for the points of a path alone."""
    monkeypatch.setitem(counted_work.DATA, "fake:digits", ((8, 8, 1), 10, 800, 400))
    config = base.quick(base.backdoor())
    config.repair.methods = ("path", "anp", "clp")
    judged = {}
    for has_batch_stats in (False, True):
        steps = counted_work.stages(config, has_batch_stats=has_batch_stats)
        judged[has_batch_stats] = {s.name: s.num_steps * s.images for s in steps}
        assert "train anp" in judged[has_batch_stats]
        assert "train clp" not in judged[has_batch_stats]
    sizes = len(config.repair.sizes)
    for one in judged.values():  # clp uses no images, so one size is enough
        assert one["anp"] / 19 / sizes == pytest.approx(one["clp"] / 9)
    assert judged[True]["anp"] == judged[False]["anp"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("experiment", "evasion", "only the work of backdoor can be counted"),
        ("repair.methods", ("path", "magic"), "unknown repair method 'magic'"),
        ("data.name", "npz:mine.npz", "the size of npz:mine.npz is unknown; use one of cifar10"),
    ],
)
def test_what_can_not_be_counted(field, value, message):
    config = paper_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        counted_work.stages(config, has_batch_stats=False)


def test_the_size_of_a_network():
    config = paper_config()
    config.model.options.batch_norm = False
    size = counted_work.size(config)
    assert size.operations == pytest.approx(0.627e9, rel=1e-3)  # docs/performance.md
    assert size.activations == pytest.approx(0.28e6, rel=0.02)
    assert not size.has_batch_stats
    assert counted_work.size(base.backdoor()).operations > 0
