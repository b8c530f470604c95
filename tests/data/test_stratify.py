import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.data import digits
from mcjax.data.stratify import holdout, stratified_order, stream

labels = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@settings(deadline=None)
@given(label=labels, seed=st.integers(0, 2**32))
def test_every_prefix_is_balanced_until_a_class_runs_out(label, seed):
    order = stratified_order(np.random.default_rng(seed), label)
    assert sorted(order) == list(range(len(label)))
    classes, total = np.unique(label, return_counts=True)
    for size in range(len(label) + 1):
        count = np.array([(label[order[:size]] == c).sum() for c in classes])
        most = count.max()
        # A class that is more than one behind has nothing left to give.
        assert ((count >= most - 1) | (count == total)).all()


@settings(deadline=None)
@given(label=labels, seed=st.integers(0, 2**32))
def test_a_proportional_prefix_has_each_class_in_its_share(label, seed):
    order = stratified_order(np.random.default_rng(seed), label, proportional=True)
    assert sorted(order) == list(range(len(label)))
    classes, total = np.unique(label, return_counts=True)
    for size in range(len(label) + 1):
        count = np.array([(label[order[:size]] == c).sum() for c in classes])
        assert (np.abs(count - total * size / len(label)) <= len(classes)).all()
        # A class's j-th example comes when the share (j - 1/2) / total of it is due.
        due = (count - 0.5) / total
        next_due = (count + 0.5) / total
        assert due.max() <= next_due[count < total].min(initial=np.inf) + 1e-9


def test_orders_are_random_within_and_between_classes():
    label = np.repeat(np.arange(4), 10)
    orders = [stratified_order(np.random.default_rng(seed), label) for seed in range(200)]
    assert len({order[0] for order in orders}) > 30
    first = np.bincount([label[order[0]] for order in orders], minlength=4)
    assert first.min() > 20


def test_streams_depend_on_seed_and_name():
    draws = {stream(s, n).integers(2**62) for s in (0, 1) for n in ("bonafide", "selection")}
    assert len(draws) == 4
    assert stream(0, "bonafide").integers(1000) == stream(0, "bonafide").integers(1000)


def test_holdout_is_a_fixed_division():
    label = np.repeat([0, 1], [30, 10])
    train, test = holdout(label, num_test=8, seed=3)
    assert sorted([*train, *test]) == list(range(40))
    assert np.bincount(label[test]).tolist() == [6, 2]
    assert np.array_equal(holdout(label, num_test=8, seed=3)[1], test)
    assert not np.array_equal(holdout(label, num_test=8, seed=4)[1], test)


def test_digits_are_divided_as_they_always_were():
    from sklearn.datasets import load_digits

    dataset = digits.load()
    assert dataset.train["image"].shape == (1297, 8, 8, 1)
    assert dataset.test["image"].shape == (500, 8, 8, 1)
    assert dataset.train["image"].max() == 1
    assert set(np.bincount(dataset.test["label"])) <= {48, 49, 50, 51}
    # Every image of the original is in one of the parts, with its label.
    image, label = load_digits(return_X_y=True)
    rows = [*zip(map(bytes, (image / 16).astype(np.float32)), label, strict=True)]
    ours = [
        (x.tobytes(), y)
        for part in (dataset.train, dataset.test)
        for x, y in zip(part["image"], part["label"], strict=True)
    ]
    assert sorted(rows) == sorted(ours)
    # Published results depend on this very division.
    digest = hashlib.sha256(dataset.test["image"].tobytes()).hexdigest()
    assert digest == "e8348036e50964cc598c52a688e262f9e1c46c3e41a682d19b830be4a31762b3"
