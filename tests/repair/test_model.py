"""Repairing one network: what comes back, what is refused, and a real backdoor."""

import functools
import os
import warnings
from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import cpu_convolution, data, find_evidence, models, repair_model
from mcjax.attacks.poisoning import backdoor, triggers
from mcjax.core.errors import UserError
from mcjax.core.tree import digest
from mcjax.data import augmentation
from mcjax.data.batches import to_unit
from mcjax.data.splits import split
from mcjax.models.batch_norm import BatchNorm
from mcjax.models.network import from_linen
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.repaired import NothingRepaired
from mcjax.training import init_state, sgd, train
from mcjax.training.losses import accuracy
from mcjax.training.objectives import endpoint_loss

X = np.tile(np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), (10, 1, 1, 1))
BONAFIDE = {"image": X, "label": np.tile(np.arange(4), 10)}


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = BatchNorm()(nn.Conv(4, (3, 3))(x), train=train)
        return nn.Dense(4)(x.mean((1, 2)))


quick_repair = functools.partial(repair_model, forms=("patch",))


def linear(w, x):
    return x.reshape(len(x), -1) @ w


def test_the_point_returned_is_on_the_curve_and_farthest_of_the_accurate_ones():
    a, b = 5 * jnp.eye(4), 3 * jnp.eye(4)
    fixed = quick_repair(jax.random.key(0), linear, a, BONAFIDE, b, num_steps=8, num_points=11)
    assert fixed.t == 0.5
    np.testing.assert_array_equal(fixed.variables, fixed.curve(jnp.float32(0.5)))
    report = fixed.report
    assert report["repaired_accuracy"] == 1.0
    assert report["num_bonafide"] + report["num_selection"] == 40
    assert report["moved"] == pytest.approx(float(jnp.linalg.norm(fixed.variables - a)), rel=1e-4)


@pytest.mark.slow(compiles=True)
def test_a_clean_second_network_may_be_taken_itself():
    a, b = 5 * jnp.eye(4), 3 * jnp.eye(4)
    fixed = quick_repair(
        jax.random.key(0), linear, a, BONAFIDE, b, num_steps=4, second_is_clean=True
    )
    assert fixed.t == 1.0
    np.testing.assert_array_equal(fixed.variables, b)


def test_without_an_acceptable_point_the_suspect_comes_back_unchanged():
    # The line to a network that is always wrong, through zero: no inner point is as good as a.
    a = 5 * jnp.eye(4)
    fixed = quick_repair(
        jax.random.key(0), linear, a, BONAFIDE, -a, num_bends=0, num_points=5, tolerance=0.1
    )
    assert fixed.report["suspect_accuracy"] == 1.0  # the better of the two is what counts
    assert fixed.t == 0.25
    assert (fixed.ok, fixed.reason) == (True, "")
    with pytest.warns(NothingRepaired, match=r"nothing was repaired: no point .* accuracy 0\.9000"):
        fixed = quick_repair(
            jax.random.key(0),
            linear,
            a,
            BONAFIDE,
            -a,
            second_is_clean=True,
            num_bends=0,
            num_points=3,
            tolerance=0.1,
        )
    assert fixed.t is None
    assert not fixed.ok
    assert fixed.variables is a
    assert fixed.report["moved"] == 0
    assert fixed.report["repaired_accuracy"] is None
    assert fixed.report["repaired_success"] is None
    assert "(the best has 0.2500); try more num_steps" in fixed.reason
    assert repr(fixed) == "Repaired(ok=False, evidence of a backdoor: no, floor=0.9000)"


@pytest.mark.slow(compiles=True)
def test_same_key_same_network():
    a, b = 5 * jnp.eye(4), 3 * jnp.eye(4)
    one, two = (
        quick_repair(jax.random.key(3), linear, a, BONAFIDE, b, num_steps=5) for _ in range(2)
    )
    assert digest(one.variables) == digest(two.variables)


@pytest.mark.slow(compiles=True)
def test_batch_norm_and_the_suspects_own_un_aligned_copy():
    network = from_linen(Normalised(), (8, 8, 1))
    suspect = network.init(jax.random.key(0))
    x = np.random.default_rng(0).uniform(size=(40, 8, 8, 1)).astype(np.float32)
    label = np.array(network.apply(suspect, x).argmax(-1))  # untrained, but no guess
    label[:8] = np.tile(np.arange(4), 2)
    bonafide = {"image": x, "label": label}
    options = {"num_steps": 4, "num_points": 3, "tolerance": 1.0, "inversion_steps": 2}
    line = quick_repair(jax.random.key(1), network, suspect, bonafide, **options)
    assert line.report["second"] == "the suspect, taught"
    for t in (0.25, 0.5):  # straight
        jax.tree.map(
            lambda w, a, b, t=t: np.testing.assert_allclose(w, (1 - t) * a + t * b, atol=1e-6),
            *(line.curve(jnp.float32(s)) for s in (t, 0, 1)),
        )
    assert digest(line.curve(jnp.float32(0))) == digest(suspect["params"])
    assert line.t == 1  # the end is trained, so it is no suspect, and the farthest of the accurate
    trained = jax.tree.leaves(line.variables["batch_stats"])
    assert not any(map(np.array_equal, trained, jax.tree.leaves(suspect["batch_stats"])))
    free = quick_repair(jax.random.key(1), network, suspect, bonafide, **options, end="free")
    assert free.report["second"] == "free, trained with the path"
    assert digest(free.curve(jnp.float32(0))) == digest(suspect["params"])
    assert digest(free.curve(jnp.float32(1))) != digest(suspect["params"])
    assert free.t in (0.5, 1)
    assert free.report["distance"][-1] > 0  # the far end is no suspect
    fixed = quick_repair(jax.random.key(1), network, suspect, bonafide, **options, end="unaligned")
    assert fixed.t == 0.5
    assert jax.tree.structure(fixed.variables) == jax.tree.structure(suspect)
    assert fixed.report["second"] == "the un-aligned copy of the suspect"
    end = {**suspect, "params": fixed.curve(jnp.float32(1))}
    assert digest(end["params"]) != digest(suspect["params"])
    moved = jax.tree.leaves(end["params"])
    assert all(  # the same weights in another order
        np.array_equal(np.sort(np.ravel(a)), np.sort(np.ravel(b)))
        for a, b in zip(moved, jax.tree.leaves(suspect["params"]), strict=True)
    )
    for change in (
        {"end": "unaligned", "unalign": "activations"},
        {"end": "unaligned", "unalign": "random"},
        {"end": "fine_tuned"},
    ):
        other = quick_repair(
            jax.random.key(1), network, suspect, bonafide, **options, **change
        ).report["second"]
        assert ("fine-tuned" in other) == (change["end"] == "fine_tuned")


def test_a_network_without_channels_to_permute_is_joined_to_a_fine_tuned_copy():
    fixed = quick_repair(
        jax.random.key(0), linear, 5 * jnp.eye(4), BONAFIDE, num_steps=4, end="unaligned"
    )
    assert fixed.report["second"].startswith(
        "a fine-tuned copy of the suspect, because this network has no channels"
    )


def test_the_usual_learning_rate_trains_the_taught_end():
    a = 5 * jnp.eye(4)
    made = [
        quick_repair(jax.random.key(0), linear, a, BONAFIDE, num_steps=6, rounds=1, **given)
        for given in ({}, {"learning_rate": 0.01}, {"learning_rate": 0.1})
    ]
    assert made[0].report["learning_rate"] == 0.01
    usual, same, faster = (float(jnp.linalg.norm(one.curve(1.0) - a)) for one in made)
    assert usual == same < faster


@pytest.mark.parametrize("method", [repair_model, find_evidence])
def test_a_suspect_of_low_accuracy_is_doubted(method, capsys):
    label = np.where(np.arange(40) % 5 < 3, (BONAFIDE["label"] + 1) % 4, BONAFIDE["label"])
    options = {"forms": ("patch",), "inversion_steps": 2, "control_steps": 0, "verbose": True}
    options |= {"num_steps": 2, "num_points": 2} if method is repair_model else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingRepaired)
        for y, number in ((label, 1), (BONAFIDE["label"], 0)):
            method(jax.random.key(0), linear, jnp.eye(4), {"image": X, "label": y}, **options)
            said = capsys.readouterr().err
            assert said.count("gives only 40 % of your images their label") == number
    options["verbose"] = False
    with pytest.warns(UserWarning, match="gives only 40 % of your images their label") as warned:
        method(jax.random.key(0), linear, jnp.eye(4), {"image": X, "label": label}, **options)
    assert warned[0].filename == __file__


@pytest.mark.slow(compiles=True)
def test_a_path_may_be_looked_at_beyond_its_ends():
    a, b = 5 * jnp.eye(4), 3 * jnp.eye(4)
    fixed = quick_repair(
        jax.random.key(0), linear, a, BONAFIDE, b, num_steps=4, num_points=3, extrapolate=0.5
    )
    assert fixed.report["ts"].tolist() == [-0.5, 0, 0.5, 1, 1.5]
    np.testing.assert_allclose(fixed.curve(jnp.float32(1.5)), 2 * jnp.eye(4), atol=0.02)
    assert fixed.t in (-0.5, 0.5, 1.5)


def test_the_report_has_the_evidence_at_every_t():
    a, b = 5 * jnp.eye(4), 3 * jnp.eye(4)
    report = repair_model(
        jax.random.key(0), linear, a, BONAFIDE, b, num_steps=4, num_points=5, inversion_steps=20
    ).report
    assert report["estimated_attack_success"].shape == (5,)
    assert set(report["success_by_form"]) == set(FORMS)
    assert all(v.min() >= 0 and v.max() <= 1 for v in report["success_by_form"].values())
    assert {one.form for one in report["findings"]} == set(report["success_by_form"])
    assert report["backdoor_found"] == (report["target"] is not None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": 255 * X}, r"lie in \[0, 255\]"),
        ({"label": BONAFIDE["label"] + 1}, r"labels lie in \[1, 4\].*4 classes"),
        ({"label": BONAFIDE["label"] + 2**32}, r"labels lie in \[4294967296, .*4 classes"),
        ({"label": BONAFIDE["label"] % 3}, "there is no bonafide image of class 3 to train on"),
        ({"image": X[:, :1]}, "does not accept images of shape"),
        ({"label": BONAFIDE["label"][:5]}, "shape"),
        ({"label": BONAFIDE["label"].astype(float)}, "give integers"),
    ],
)
def test_images_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        repair_model(jax.random.key(0), linear, jnp.eye(4), {**BONAFIDE, **changes}, jnp.eye(4))


def test_networks_of_different_structure():
    with pytest.raises(UserError, match="the suspect and the second network differ"):
        repair_model(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, {"w": jnp.eye(4)})


def test_the_suspect_itself_is_no_second_network():
    with pytest.raises(UserError, match="is the suspect itself"):
        repair_model(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, jnp.eye(4))


def test_a_suspect_that_guesses():
    """Labels of another order: not one is right."""
    shuffled = {**BONAFIDE, "label": (BONAFIDE["label"] + 1) % 4}
    with pytest.raises(
        UserError, match=r"only 0 of the .* images correctly, no better than chance"
    ):
        repair_model(jax.random.key(0), linear, jnp.eye(4), shuffled, 2 * jnp.eye(4))


def test_running_statistics_need_a_network():
    suspect = {"params": jnp.eye(4), "batch_stats": {"mean": jnp.zeros(4)}}
    with pytest.raises(UserError, match="from_linen"):
        repair_model(jax.random.key(0), linear, suspect, BONAFIDE)


def test_a_copy_of_the_suspect_is_never_clean():
    with pytest.raises(UserError, match="second_is_clean needs second: a copy"):
        repair_model(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, second_is_clean=True)


def test_a_module_alone_has_no_image_shape():
    with pytest.raises(
        UserError, match=r"give mcjax.models.network.from_linen\(module, image_shape\)"
    ):
        repair_model(jax.random.key(0), Normalised(), jnp.eye(4), BONAFIDE)


@pytest.mark.slow(compiles=True)
def test_numbers_of_numpy_fractions_and_older_keys_are_numbers_and_keys():
    options = {"num_steps": np.int64(3), "num_points": np.int8(3), "momentum": Fraction(9, 10)}
    ends = 5 * jnp.eye(4), BONAFIDE, 3 * jnp.eye(4)
    fixed = quick_repair(
        jax.random.PRNGKey(0), linear, *ends, learning_rate=np.float64(0.05), **options
    )
    plain = quick_repair(jax.random.key(0), linear, *ends, num_steps=3, num_points=3)
    assert digest(fixed.variables) == digest(plain.variables)


@pytest.fixture(scope="module")
def backdoored():
    """Two small networks trained here on digits, a tenth of them stamped."""
    cpu_convolution.enable()  # XLA's own gradients, unoptimised, take most of the time
    dataset = data.load("digits")
    splits = split(dataset, seed=0, num_bonafide=400, num_selection=150)
    stamp = triggers.create("square", (8, 8, 1))
    poisoned = backdoor.poison(splits.train, stamp, seed=0, num_classes=10).examples
    network = from_linen(models.create("cnn", num_classes=10, width=4), (8, 8, 1))
    optimizer = sgd(0.05, 300, momentum=0.9)
    suspects = []
    for i in range(2):
        state = init_state(network.init(jax.random.key(i))["params"], {}, optimizer)
        *_, (state, _) = train(
            jax.random.key(i),
            state,
            None,
            jax.tree.map(jnp.asarray, dict(poisoned)),
            num_steps=300,
            steps_per_dispatch=300,
            loss_fn=endpoint_loss(network),
            optimizer=optimizer,
            batch_size=64,
            augment_fn=augmentation.get("none"),
        )
        suspects.append({"params": state.params})
    attack = backdoor.attack_set(splits.test, stamp, num_classes=10)

    apply = jax.jit(network.apply)

    def rates(variables):
        return tuple(
            float(accuracy(apply(variables, to_unit(x["image"])), x["label"]).mean())
            for x in (splits.test, attack)
        )

    yield network, suspects, splits, rates
    cpu_convolution.disable()


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_the_backdoor_goes_and_accuracy_stays(backdoored, alone):
    network, (a, b), splits, rates = backdoored
    clean, success = rates(a)
    assert clean > 0.9
    assert success > 0.95
    fixed = repair_model(
        jax.random.key(0),
        network,
        a,
        splits.bonafide,
        None if alone else b,
        selection=splits.selection,
        num_steps=1000,
        batch_size=64,
    )
    clean_after, success_after = rates(fixed.variables)
    assert 0 < fixed.t < (1.01 if alone else 1)
    assert clean_after > clean - 0.03
    assert success_after < 0.05


def resident_mib():
    """Memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.mark.slow(compiles=True)
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
def test_the_second_call_compiles_nothing_and_memory_stays_flat():
    compiled = []
    listener = lambda event, *_, **__: compiled.append(event)  # noqa: E731
    network = from_linen(models.create("mlp", num_classes=4, hidden=(4,)), (2, 2, 1))
    ends = [network.init(jax.random.key(i)) for i in range(2)]
    for v in ends:  # linear in the image, and always right
        v["params"]["fc1"] = {"kernel": 5 * jnp.eye(4), "bias": jnp.zeros(4)}
        v["params"]["fc2"] = {"kernel": 5 * jnp.eye(4), "bias": jnp.zeros(4)}
    ends[1]["params"]["fc2"]["kernel"] *= 2

    def repair(network):
        options = {"num_steps": 4, "num_points": 3, "batch_size": 8}
        return repair_model(jax.random.key(0), network, ends[0], BONAFIDE, ends[1], **options)

    repair(network)
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        before = resident_mib()
        for _ in range(3):
            repair(network)
            repair(from_linen(models.create("mlp", num_classes=4, hidden=(4,)), (2, 2, 1)))
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert [e for e in compiled if "backend_compile" in e] == []
    assert resident_mib() - before < 5
