import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax import data
from mcjax.core.errors import UserError

PARTS = ("train", "bonafide", "selection", "test")


def dataset(num_train=60, num_test=30, num_classes=3, seed=0, duplicates=()):
    """Random images; `duplicates` are pairs (part, i, part, j): image i becomes a copy of j."""
    rng = np.random.default_rng(seed)
    parts = {
        name: {
            "image": rng.integers(0, 256, (size, 4, 4, 1), np.uint8),
            "label": rng.permutation(np.arange(size) % num_classes).astype(np.int32),
        }
        for name, size in (("train", num_train), ("test", num_test))
    }
    for to, i, origin, j in duplicates:
        parts[to]["image"][i] = parts[origin]["image"][j]
    return data.Dataset("random", **parts, num_classes=num_classes, source="test")


def contents(examples):
    return {image.tobytes() for image in examples["image"]}


def sizes(splits):
    return [len(getattr(splits, part)["label"]) for part in PARTS]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_bonafide=st.integers(3, 25),
    num_selection=st.integers(0, 25),
)
def test_parts_share_no_content_and_lose_no_image(seed, num_bonafide, num_selection):
    whole = dataset()
    splits = data.split(whole, seed=seed, num_bonafide=num_bonafide, num_selection=num_selection)
    assert sizes(splits) == [60 - num_bonafide - num_selection, num_bonafide, num_selection, 30]
    union = set.union(*(contents(getattr(splits, part)) for part in PARTS))
    assert len(union) == 90
    for part in PARTS:
        official = whole.test if part == "test" else whole.train
        for key in ("image", "label"):
            np.testing.assert_array_equal(
                getattr(splits, part)[key], official[key][splits.indices[part]]
            )
    for part in ("bonafide", "selection"):
        for size in range(len(getattr(splits, part)["label"]) + 1):
            count = np.bincount(getattr(splits, part)["label"][:size], minlength=3)
            assert count.max() - count.min() <= 1 or part == "selection" or size > 3 * 12


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_images_that_occur_twice_are_counted_and_never_drawn(seed):
    pairs = [
        ("train", 0, "test", 0),
        ("train", 1, "train", 2),
        ("train", 3, "train", 2),
        ("test", 5, "test", 6),
    ]
    whole = dataset(duplicates=pairs)
    # All that can be drawn: 56 of 60.
    splits = data.split(whole, seed=seed, num_bonafide=30, num_selection=20)
    drawn = contents(splits.bonafide) | contents(splits.selection)
    assert len(drawn) == 50
    assert not drawn & (contents(splits.train) | contents(splits.test))
    assert {0, 1, 2, 3} <= set(splits.indices["train"])
    assert splits.duplicates == {"train_in_test": 1, "within_train": 2, "within_test": 1}
    with pytest.raises(UserError, match="56 training images"):
        data.split(whole, seed=seed, num_bonafide=57, num_selection=0)


def test_a_leak_by_position_alone_would_be_noticed():
    # The same image everywhere in class 0's train, so nothing of class 0 can be bonafide.
    whole = dataset()
    zero = np.flatnonzero(whole.train["label"] == 0)
    whole.train["image"][zero] = whole.train["image"][zero[0]]
    with pytest.raises(UserError, match="leave out class 0"):
        data.split(whole, seed=0, num_bonafide=12, num_selection=0)


def test_smaller_bonafide_sets_are_prefixes_with_the_same_selection():
    large = data.split(dataset(), seed=3, num_bonafide=24, num_selection=9)
    small = data.split(dataset(), seed=3, num_bonafide=12, num_selection=9)
    assert small.hashes["selection"] == large.hashes["selection"]
    for key in ("image", "label"):
        np.testing.assert_array_equal(small.bonafide[key], large.bonafide[key][:12])
        np.testing.assert_array_equal(large.bonafide_subset(12)[key], small.bonafide[key])
    with pytest.raises(UserError, match="but the split has 24"):
        large.bonafide_subset(25)
    with pytest.raises(UserError, match="leave out class"):
        large.bonafide_subset(2)


def test_a_split_is_decided_by_the_seed():
    first, again, other = (
        data.split(dataset(), seed=seed, num_bonafide=9, num_selection=9) for seed in (1, 1, 2)
    )
    assert first.hashes == again.hashes
    assert first.hashes["test"] == other.hashes["test"]
    for part in ("train", "bonafide", "selection"):
        assert first.hashes[part] != other.hashes[part]


def test_hashes_see_images_labels_and_order():
    whole = dataset()
    splits = data.split(whole, seed=0, num_bonafide=9, num_selection=9)
    assert set(splits.hashes) == set(PARTS)
    assert all(len(value) == 64 for value in splits.hashes.values())
    for key, change in (("image", 1), ("label", 1)):
        test = {k: v.copy() for k, v in whole.test.items()}
        test[key][0] = (test[key][0] + change) % 3
        other = data.split(
            dataclasses.replace(whole, test=test), seed=0, num_bonafide=9, num_selection=9
        )
        assert other.hashes["test"] != splits.hashes["test"]
        assert other.hashes["bonafide"] == splits.hashes["bonafide"]
    swapped = {k: v[::-1] for k, v in whole.test.items()}
    other = data.split(
        dataclasses.replace(whole, test=swapped), seed=0, num_bonafide=9, num_selection=9
    )
    assert other.hashes["test"] != splits.hashes["test"]


def test_legacy_repeats_the_official_overlap():
    whole = dataset()
    splits = data.split(whole, seed=0, num_bonafide=15, num_selection=0, protocol="legacy")
    assert sizes(splits) == [60, 15, 30, 30]
    assert contents(splits.bonafide) < contents(splits.test)
    assert splits.hashes["selection"] == splits.hashes["test"]
    assert splits.protocol == "legacy"
    smaller = data.split(whole, seed=0, num_bonafide=5, num_selection=0, protocol="legacy")
    np.testing.assert_array_equal(smaller.bonafide["label"], splits.bonafide["label"][:5])
    np.testing.assert_array_equal(
        splits.bonafide["image"], whole.test["image"][splits.indices["bonafide"]]
    )
    # Drawn from all of the test set over the seeds, not from its first half only.
    drawn = [
        data.split(whole, seed=seed, num_bonafide=15, num_selection=0, protocol="legacy")
        for seed in range(20)
    ]
    assert set(np.concatenate([s.indices["bonafide"] for s in drawn])) == set(range(30))
    with pytest.raises(UserError, match="one half"):
        data.split(whole, seed=0, num_bonafide=16, num_selection=0, protocol="legacy")


@settings(deadline=None, max_examples=30)
@given(k=st.integers(2, 7), num_bonafide=st.integers(7, 30))
def test_folds_hold_each_image_out_once_and_spread_the_classes(k, num_bonafide):
    splits = data.split(dataset(), seed=0, num_bonafide=num_bonafide, num_selection=0)
    folds = splits.folds(k)
    assert len(folds) == k
    held = [contents(held_out) for _, held_out in folds]
    assert set.union(*held) == contents(splits.bonafide)
    assert sum(map(len, held)) == num_bonafide
    for rest, held_out in folds:
        assert contents(rest) == contents(splits.bonafide) - contents(held_out)
    count = np.array([np.bincount(fold["label"], minlength=3) for _, fold in folds])
    assert (np.ptp(count, axis=0) <= 1).all()
    assert np.ptp(count.sum(1)) <= 1
    with pytest.raises(UserError, match="folds"):
        splits.folds(num_bonafide + 1)
    with pytest.raises(UserError, match="folds"):
        splits.folds(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bonafide": 61, "num_selection": 0}, "61 bonafide images.*60 training images"),
        ({"num_selection": 61}, "61 selection images.*60 training images"),
        ({"num_bonafide": 40, "num_selection": 30}, "request fewer"),
        ({"num_bonafide": 40, "num_selection": 20}, "without training images"),
        ({"num_bonafide": 2}, "leave out class"),
        ({"num_bonafide": -1}, "num_bonafide is -1"),
        ({"num_selection": -1}, "num_selection is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"protocol": "official"}, "disjoint, legacy"),
    ],
)
def test_what_cannot_be_split_is_said_in_one_line(options, message):
    options = {"seed": 0, "num_bonafide": 9, "num_selection": 9} | options
    with pytest.raises(UserError, match=message) as caught:
        data.split(dataset(), **options)
    assert "\n" not in str(caught.value)


def test_nothing_drawn_leaves_the_official_sets():
    whole = dataset()
    splits = data.split(whole, seed=0, num_bonafide=0, num_selection=0)
    np.testing.assert_array_equal(splits.train["image"], whole.train["image"])
    assert sizes(splits) == [60, 0, 0, 30]


def test_in_a_notebook_splits_are_one_short_line():
    parts = data.split(data.load("fake:digits"), seed=0, num_bonafide=20, num_selection=10)
    assert repr(parts) == "Splits(disjoint: train 770, bonafide 20, selection 10, test 400)"
