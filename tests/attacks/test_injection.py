"""Which images an error injection is about, and what its report says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.attacks.injection import choose_faults, describe, select_layers
from mcjax.errors import UserError

EXAMPLES = {
    "image": np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2, 1),
    "label": (np.arange(40) % 4).astype(np.int32),
}
VARIABLES = {
    "params": {
        "fc1": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)},
        "fc10": {"kernel": jnp.ones((3, 2))},
    },
    "batch_stats": {},
}


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), num_faults=st.integers(1, 20))
def test_targets_are_never_the_true_class_and_the_others_keep_theirs(seed, num_faults):
    correct = np.arange(40) % 2 == 0
    faults = choose_faults(
        EXAMPLES, correct, seed=seed, num_faults=num_faults, num_images=20, num_classes=4
    )
    label, true = faults.examples["label"], EXAMPLES["label"][faults.indices]
    assert (label[:num_faults] != true[:num_faults]).all()
    np.testing.assert_array_equal(faults.true_label, true[:num_faults])
    np.testing.assert_array_equal(label[num_faults:], true[num_faults:])
    assert ((label >= 0) & (label < 4)).all()
    assert correct[faults.indices].all()
    assert len(set(faults.indices)) == 20
    np.testing.assert_array_equal(faults.examples["image"], EXAMPLES["image"][faults.indices])


def test_every_other_class_is_a_target_now_and_then():
    correct = np.ones(40, bool)
    met = set()
    for seed in range(30):
        faults = choose_faults(
            EXAMPLES, correct, seed=seed, num_faults=4, num_images=4, num_classes=4
        )
        met |= set(zip(faults.true_label.tolist(), faults.examples["label"].tolist(), strict=True))
    assert met == {(a, b) for a in range(4) for b in range(4) if a != b}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_faults": 5, "num_images": 4}, "5 faults among 4"),
        ({"num_faults": 0, "num_images": 4}, "0 faults among 4"),
        ({"num_faults": 1, "num_images": 21}, "only 20 of 40 images are classified correctly"),
        ({"num_faults": 1, "num_images": 4, "num_classes": 1}, "at least 2"),
    ],
)
def test_numbers_that_cannot_be_met(numbers, message):
    with pytest.raises(UserError, match=message):
        choose_faults(EXAMPLES, np.arange(40) < 20, seed=0, **{"num_classes": 4, **numbers})


def test_layers_by_name_and_by_what_holds_them():
    whole = select_layers(VARIABLES)
    assert whole.names == ("fc1/bias", "fc1/kernel", "fc10/kernel")
    assert len(whole.theta) == 15
    one = select_layers(VARIABLES, ["fc1"])  # not fc10, which begins alike
    assert one.names == ("fc1/bias", "fc1/kernel")
    changed = one.with_weights(one.theta + 1)
    jax.tree.map(
        np.testing.assert_array_equal,
        changed,
        {
            "params": {
                "fc1": jax.tree.map(lambda w: w + 1, VARIABLES["params"]["fc1"]),
                "fc10": VARIABLES["params"]["fc10"],
            },
            "batch_stats": {},
        },
    )
    with pytest.raises(UserError, match=r"no layer 'fc2'; there are fc1/bias, fc1/kernel, fc10/k"):
        select_layers(VARIABLES, ["fc2"])


def test_the_report_counts_weights_layers_and_images():
    before = select_layers(VARIABLES)
    theta = before.theta.at[3].add(3.0).at[14].add(-4.0)  # fc1/kernel and fc10/kernel
    faults = choose_faults(
        EXAMPLES, np.ones(40, bool), seed=1, num_faults=2, num_images=5, num_classes=4
    )
    answers = faults.examples["label"].copy()
    answers[1] = faults.true_label[1]  # a fault that is not in
    answers[4] = (answers[4] + 1) % 4  # an image that did not keep its class
    report = describe(before, theta, jax.nn.one_hot(answers, 4), faults).report
    assert report["injection_success"] == 0.5
    assert report["kept_accuracy"] == pytest.approx(2 / 3)
    assert (report["norm_l0"], report["norm_l2"], report["norm_linf"]) == (2, 5.0, 4.0)
    assert report["layers"] == ["fc1/kernel", "fc10/kernel"]
    assert report["num_weights"] == 15
    assert not report["converged"]


@pytest.mark.parametrize(
    "label", [EXAMPLES["label"][:, None], EXAMPLES["label"] + 1, EXAMPLES["label"][:39]]
)
def test_labels_that_are_not_one_class_per_image_are_refused(label):
    with pytest.raises(UserError, match="labels have shape"):
        choose_faults(
            {**EXAMPLES, "label": label}, np.ones(40, bool), seed=0, num_faults=2, num_images=4,
            num_classes=4,
        )  # fmt: skip
