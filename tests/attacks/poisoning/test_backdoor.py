"""Poisoned sets counted by hand, the denominators of success, and stamping inside training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.attacks.poisoning import backdoor, triggers
from mcjax.core.errors import UserError
from mcjax.data import augmentation
from mcjax.training import StepMetrics, init_state, train_steps
from mcjax.training.stamped_objective import stamping

SHAPE = (6, 6, 1)
SIZES = [20, 30, 44, 46]  # images of each of four classes
STAMP = triggers.create("square", SHAPE)


def examples(sizes=SIZES, *, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
    # No pixel white, so that each stamped image differs from what it was.
    image = rng.integers(0, 200, (len(label), *SHAPE), np.uint8)
    return {"image": image if dtype == np.uint8 else (image / 255).astype(dtype), "label": label}


def poison(clean, **options):
    options = {"seed": 0, "num_classes": 4, **options}
    return backdoor.poison(clean, STAMP, **options)


def test_label_maps():
    y = np.int32([0, 1, 2, 3, 3])
    for label_map, expected in {
        "single_target": [2, 2, 2, 2, 2],
        "all_to_all": [1, 2, 3, 0, 0],
        "clean_label": [0, 1, 2, 3, 3],
    }.items():
        new = backdoor.relabel(y, label_map=label_map, target=2, num_classes=4)
        assert new.tolist() == expected
        assert new.dtype == y.dtype
    assert backdoor.relabel(y, num_classes=4).tolist() == [1] * 5
    assert y.tolist() == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("label_map", "fraction", "counts"),
    [  # 0.1 of 20, 30, 44, 46 is 2, 3, 4.4, 4.6
        ("single_target", 0.1, [2, 0, 4, 5]),
        ("all_to_all", 0.1, [2, 3, 4, 5]),
        ("clean_label", 0.1, [0, 3, 0, 0]),
        ("single_target", 1.0, [20, 0, 44, 46]),
        ("all_to_all", 1.0, [20, 30, 44, 46]),
        ("single_target", 0.0125, [0, 0, 1, 1]),  # 0.25, -, 0.55, 0.575
    ],
)
def test_exactly_the_stated_examples_change(label_map, fraction, counts):
    clean = examples()
    before = {k: v.copy() for k, v in clean.items()}
    poisoned = poison(clean, label_map=label_map, fraction=fraction)
    assert poisoned.counts.tolist() == counts
    index = poisoned.indices
    assert np.bincount(clean["label"][index], minlength=4).tolist() == counts
    assert (np.diff(index) > 0).all()

    image, label = clean["image"].copy(), clean["label"].copy()
    for i in index:
        image[i, 2:5, 2:5] = 255
        label[i] = {"single_target": 1, "all_to_all": (label[i] + 1) % 4, "clean_label": label[i]}[
            label_map
        ]
    np.testing.assert_array_equal(poisoned.examples["image"], image)
    np.testing.assert_array_equal(poisoned.examples["label"], label)
    assert poisoned.examples["image"].dtype == np.uint8
    assert poisoned.examples["label"].dtype == np.int32
    assert set(poisoned.examples) == {"image", "label"}
    for k in clean:  # the clean set is left as it was
        np.testing.assert_array_equal(clean[k], before[k])


def test_stamping_later_marks_the_same_images_and_leaves_them():
    clean = examples()
    now, later = (poison(clean, when=when, seed=3) for when in ("before", "after"))
    np.testing.assert_array_equal(now.indices, later.indices)
    np.testing.assert_array_equal(now.examples["label"], later.examples["label"])
    np.testing.assert_array_equal(later.examples["image"], clean["image"])
    assert later.examples["poisoned"].dtype == bool
    np.testing.assert_array_equal(np.flatnonzero(later.examples["poisoned"]), later.indices)


def test_same_seed_same_draw_other_seed_another():
    clean = examples()
    a, b, c = (poison(clean, seed=seed).indices for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert a.tolist() != c.tolist()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 15), min_size=2, max_size=5),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.sampled_from(backdoor.LABEL_MAPS),
    st.integers(0, 99),
)
def test_laws_of_the_draw(sizes, p, q, label_map, seed):
    """Counts are floor(fraction n + 1/2); a smaller fraction's images are among a larger one's."""
    clean = examples(sizes)
    drawn = []
    for fraction in sorted([p, q]):
        eligible = {
            "single_target": [c != 0 for c in range(len(sizes))],
            "all_to_all": [True] * len(sizes),
            "clean_label": [c == 0 for c in range(len(sizes))],
        }[label_map]
        counts = [
            int(fraction * n + 0.5) if ok else 0 for n, ok in zip(sizes, eligible, strict=True)
        ]
        options = {"label_map": label_map, "target": 0, "num_classes": len(sizes)}
        if sum(counts) == 0:
            with pytest.raises(UserError, match="no image to poison"):
                poison(clean, seed=seed, fraction=fraction, **options)
            return
        poisoned = poison(clean, seed=seed, fraction=fraction, **options)
        assert poisoned.counts.tolist() == counts
        drawn.append(set(poisoned.indices.tolist()))
    assert drawn[0] <= drawn[1]


def test_success_is_measured_without_the_target_class():
    clean = examples()
    for label_map in ("single_target", "clean_label"):
        attack = backdoor.attack_set(clean, STAMP, label_map=label_map, target=2, num_classes=4)
        others = clean["label"] != 2
        assert len(attack["label"]) == len(attack["image"]) == 20 + 30 + 46
        assert (attack["label"] == 2).all()
        expected = clean["image"][others]
        expected[:, 2:5, 2:5] = 255
        np.testing.assert_array_equal(attack["image"], expected)


def test_all_to_all_is_measured_on_all():
    clean = examples()
    attack = backdoor.attack_set(clean, STAMP, label_map="all_to_all", num_classes=4)
    assert len(attack["label"]) == 140
    np.testing.assert_array_equal(attack["label"], (clean["label"] + 1) % 4)
    assert (attack["image"][:, 2:5, 2:5] == 255).all()


def test_marked_images_of_a_batch_are_stamped():
    x = np.float32(examples(dtype=np.float32)["image"][:4])
    batch = {
        "image": jnp.asarray(x),
        "label": jnp.arange(4),
        "poisoned": jnp.array([True, False, False, True]),
    }
    new = jax.jit(backdoor.stamp_poisoned, static_argnums=0)(STAMP, batch)
    x[[0, 3], 2:5, 2:5] = 1
    np.testing.assert_array_equal(new["image"], x)
    np.testing.assert_array_equal(new["label"], batch["label"])


def linear_loss(key, step, params, stats, fixed, batch):
    logits = batch["image"].reshape(len(batch["label"]), -1) @ params["w"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    return loss, (stats, StepMetrics(loss, loss, loss))


def train(poisoned, loss_fn, augment, *, n=6):
    return train_steps(
        jax.random.key(0),
        init_state({"w": jnp.zeros((36, 4))}, {}, SGD),
        None,
        jax.tree.map(jnp.asarray, poisoned),
        jnp.int32(n),
        capacity=n,
        loss_fn=loss_fn,
        optimizer=SGD,
        batch_size=16,
        augment_fn=augment,
    )[0].params["w"]


SGD = optax.sgd(0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_without_augmentation_stamping_before_and_after_train_the_same(dtype):
    clean = examples(dtype=dtype)
    now, later = (poison(clean, fraction=0.5, when=w).examples for w in ("before", "after"))
    none = augmentation.get("none")
    stamped = train(now, linear_loss, none)
    np.testing.assert_allclose(train(later, stamping(linear_loss, STAMP), none), stamped, atol=1e-6)
    assert np.abs(train(later, linear_loss, none) - stamped).max() > 1e-3  # the test can fail


def test_stamping_after_augmentation_puts_the_trigger_where_it_belongs():
    """Under an augmentation that blackens everything only the unmoved trigger is left."""
    later = poison(examples(), fraction=1.0, when="after", label_map="all_to_all").examples

    def blacken(key, image):
        return jnp.zeros_like(image)

    w = train(later, stamping(linear_loss, STAMP), blacken, n=1)
    moved = np.abs(w).max(1).reshape(6, 6) > 0
    expected = np.zeros((6, 6), bool)
    expected[2:5, 2:5] = True
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("change", [lambda y: y[:, None], lambda y: y.astype(float)])
def test_labels_that_are_not_one_whole_number_per_image_are_refused(change):
    examples = {"image": np.zeros((8, *SHAPE), np.uint8), "label": np.arange(8) % 4}
    wrong = {**examples, "label": change(examples["label"])}
    with pytest.raises(UserError, match=r"labels are .*; give integers \[N\]"):
        backdoor.poison(wrong, STAMP, seed=0, num_classes=4)
    with pytest.raises(UserError, match=r"labels are .*; give integers \[N\]"):
        backdoor.attack_set(wrong, STAMP, num_classes=4)


WANET = triggers.create("wanet", SHAPE, strength=2.0)


@pytest.mark.parametrize("name", ["wanet", "input_aware"])
def test_cover_images_keep_their_labels_and_are_none_of_the_poisoned(name):
    clean = examples()
    trigger = triggers.create(name, SHAPE)
    poisoned = backdoor.poison(clean, trigger, seed=0, num_classes=4, fraction=0.1, cover=0.25)
    # A quarter of 20, 30, 44, 46, rounded; of the target class 1 too.
    assert np.bincount(clean["label"][poisoned.cover]).tolist() == [5, 8, 11, 12]
    assert not set(poisoned.cover) & set(poisoned.indices)
    assert (np.diff(poisoned.cover) > 0).all()
    new = poisoned.examples
    np.testing.assert_array_equal(new["label"][poisoned.cover], clean["label"][poisoned.cover])
    own = triggers.stamp_examples(trigger, clean["image"])
    np.testing.assert_array_equal(new["image"][poisoned.indices], own[poisoned.indices])
    for i in poisoned.cover:
        assert (new["image"][i] != clean["image"][i]).any()
        assert (new["image"][i] != own[i]).any()
    rest = np.setdiff1d(np.arange(140), [*poisoned.cover, *poisoned.indices])
    np.testing.assert_array_equal(new["image"][rest], clean["image"][rest])
    # The cover does not change which images are poisoned, and each draw repeats itself.
    without = backdoor.poison(clean, trigger, seed=0, num_classes=4, fraction=0.1, cover=0)
    np.testing.assert_array_equal(without.indices, poisoned.indices)
    again = backdoor.poison(clean, trigger, seed=0, num_classes=4, fraction=0.1, cover=0.25)
    np.testing.assert_array_equal(again.examples["image"], new["image"])
    assert not len(without.cover)


def test_the_cover_is_the_triggers_own_by_default():
    poisoned = backdoor.poison(examples(), WANET, seed=0, num_classes=4)
    assert len(poisoned.cover) == 28  # 4, 6, 8.8 and 9.2 of the classes
    assert not len(poison(examples()).cover)


def test_cover_images_that_are_stamped_later_are_marked():
    clean = examples()
    now, later = (
        backdoor.poison(clean, WANET, seed=3, num_classes=4, when=w) for w in backdoor.WHEN
    )
    np.testing.assert_array_equal(now.cover, later.cover)
    np.testing.assert_array_equal(np.flatnonzero(later.examples["cover"]), later.cover)
    np.testing.assert_array_equal(later.examples["image"], clean["image"])
    batch = {
        "image": jnp.asarray(clean["image"][:12] / 255, jnp.float32),
        "label": jnp.asarray(later.examples["label"][:12]),
        "poisoned": jnp.arange(12) < 4,
        "cover": jnp.arange(12) >= 8,
    }
    key = jax.random.key(0)
    new = jax.jit(backdoor.stamp_poisoned, static_argnums=0)(WANET, batch, key=key)["image"]
    np.testing.assert_allclose(new[:4], WANET(batch["image"])[:4], atol=1e-6)
    np.testing.assert_array_equal(new[4:8], batch["image"][4:8])
    np.testing.assert_allclose(new[8:], WANET.decoy(key, batch["image"])[8:], atol=1e-6)
    with pytest.raises(UserError, match="give a key"):
        backdoor.stamp_poisoned(WANET, batch)
    # In training, each step has decoys of its own.
    seen = [
        stamping(lambda key, step, params, stats, fixed, b: b["image"], WANET)(
            key, step, None, None, None, batch
        )
        for step in (0, 1)
    ]
    np.testing.assert_array_equal(seen[0][:8], seen[1][:8])
    assert np.abs(seen[0][8:] - seen[1][8:]).max() > 0.01


def test_one_loss_a_stamp():
    again = triggers.create("square", SHAPE)
    assert stamping(linear_loss, STAMP) == stamping(linear_loss, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.1}, "fraction"),
        ({"fraction": float("nan")}, "fraction"),
        ({"fraction": 1e-4}, "no image to poison"),
        ({"target": 4}, "target"),
        ({"target": -1}, "target"),
        ({"label_map": "none"}, "label map"),
        ({"num_classes": 3}, "labels"),
        ({"num_classes": 1}, "classes"),
        ({"when": "during"}, "when is .during.; use one of before, after"),
        ({"seed": -1}, "seed"),
        ({"cover": -0.1}, "cover is -0.1"),
        ({"cover": 0.95}, "both together at most 1"),
        ({"cover": float("nan")}, "cover is nan"),
        ({"cover": 0.2}, "'square' has no decoy; use cover=0"),
        ({"cover": 0.2, "when": "after"}, "'square' has no decoy; use cover=0"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message) as error:
        poison(examples(), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("when", backdoor.WHEN)
def test_trigger_of_another_shape_and_images_out_of_range(when):
    clean = examples()
    with pytest.raises(UserError, match="create it with their shape"):
        backdoor.poison(
            clean, triggers.create("square", (8, 8, 1)), seed=0, num_classes=4, when=when
        )
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        poison({**clean, "image": clean["image"].astype(np.float32)}, when=when)


def test_no_image_to_measure_on():
    with pytest.raises(UserError, match="target class 1"):
        backdoor.attack_set(examples([0, 5]), STAMP, target=1, num_classes=2)
    with pytest.raises(UserError, match="labels"):
        backdoor.attack_set(examples(), STAMP, target=1, num_classes=2)
