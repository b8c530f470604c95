"""Splits a data set into disjoint training, bonafide, selection and test images."""

import collections
import dataclasses
import hashlib

import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.keys import check_seed
from mcjax.data.dataset import Dataset
from mcjax.data.stratify import stratified_order, stream

Examples = dict[str, np.ndarray]
PROTOCOLS = ("disjoint", "legacy")


@dataclasses.dataclass(frozen=True, repr=False)
class Splits:
    """Four sets of examples, each {"image": [N, H, W, C], "label": int32 [N]}, made by `split`.

    Args:
        train: For training the endpoint networks.
        bonafide: The clean images that a repair may use, ordered so that prefixes are balanced.
        selection: For choosing t and other settings.
        test: For reporting only.
        hashes: SHA-256 (hex) of each part's images and labels, by part.
        protocol: "disjoint" or "legacy".
        indices: int64 positions of each part's examples, by part. "disjoint": "test" in the
            official test set, the others in the official training set. "legacy": "train" in the
            official training set, the others in the official test set.
        duplicates: Number of official training images that are byte-identical to a test image
            ("train_in_test") or to an earlier training image ("within_train"), and of test images
            identical to an earlier test image ("within_test"). They are kept, but "disjoint" never
            draws them.
    """

    train: Examples
    bonafide: Examples
    selection: Examples
    test: Examples
    hashes: dict[str, str]
    protocol: str
    indices: dict[str, np.ndarray]
    duplicates: dict[str, int]

    def __repr__(self) -> str:
        """The sizes in one line, not the arrays."""
        parts = ("train", "bonafide", "selection", "test")
        sizes = ", ".join(f"{name} {len(getattr(self, name)['label'])}" for name in parts)
        return f"Splits({self.protocol}: {sizes})"

    def bonafide_subset(self, size: int) -> Examples:
        """The first `size` bonafide examples, so smaller sets are subsets of larger ones.

        Args:
            size: Number of examples.

        Returns:
            The examples; with "disjoint" the class counts differ by at most one, if the data set has
            enough images of each class.

        Raises:
            UserError: There are fewer than `size`, or (with "disjoint") a class would be missing.
        """
        available = len(self.bonafide["label"])
        if not 1 <= size <= available:
            raise UserError(
                f"{size} bonafide images requested, but the split has {available}; "
                f"request 1 to {available}"
            )
        subset = _take(self.bonafide, np.arange(size))
        if self.protocol == "disjoint":
            _check_classes(subset["label"], np.unique(self.bonafide["label"]), "bonafide")
        return subset

    def folds(self, k: int = 5) -> list[tuple[Examples, Examples]]:
        """Divides the bonafide examples for k-fold cross-validation, stratified by class.

        Args:
            k: Number of folds, at least 2.

        Returns:
            k pairs (rest, held out). Each example is held out once; fold sizes, and each class's
            counts per fold, differ by at most one.

        Raises:
            UserError: k is less than 2 or more than the number of bonafide images.
        """
        label = self.bonafide["label"]
        if not 2 <= k <= len(label):
            raise UserError(
                f"{k} folds of {len(label)} bonafide images; give 2 to {len(label)} folds"
            )
        fold = _fold_of(label, k)
        return [
            (
                _take(self.bonafide, np.flatnonzero(fold != j)),
                _take(self.bonafide, np.flatnonzero(fold == j)),
            )
            for j in range(k)
        ]

    def fold(self, j: int, k: int) -> "Splits":
        """The split for fold j of k: fold j is the selection set, the others are the bonafide set.

        Args:
            j: Index of the fold, from 0.
            k: Number of folds, at least 2.

        Returns:
            A split with the same training and test images, and with its own hashes and indices.
        """
        label = self.bonafide["label"]
        held_out = _fold_of(label, k) == j
        bonafide, selection = (
            _take(self.bonafide, np.flatnonzero(chosen)) for chosen in (~held_out, held_out)
        )
        drawn = self.indices["bonafide"]
        return dataclasses.replace(
            self,
            bonafide=bonafide,
            selection=selection,
            hashes={
                **self.hashes,
                "bonafide": _sha256(bonafide),
                "selection": _sha256(selection),
            },
            indices={
                **self.indices,
                "bonafide": drawn[~held_out],
                "selection": drawn[held_out],
            },
        )


def split(
    dataset: Dataset,
    *,
    seed: int,
    num_bonafide: int,
    num_selection: int,
    protocol: str = "disjoint",
) -> Splits:
    """Splits a data set so that images used for repair or selection are never reported on.

    "disjoint": bonafide and selection images are drawn, balanced over the classes, from the official
    training set and removed from it; test is the whole official test set. Images with byte-identical
    duplicates in the training and test sets are never drawn, so bonafide and selection share no
    image with each other, train or test. For a given seed the selection images do not depend on
    `num_bonafide`, and fewer bonafide images are a prefix of more.

    "legacy": the protocol of the paper's official code, only for comparison with its numbers, NOT FOR
    REPORTING: bonafide images are drawn at random, unbalanced, from one half of the test set;
    selection and test are both the whole test set, which includes them. `num_selection` is ignored.

    Args:
        dataset: The data.
        seed: Seed of the draw, non-negative.
        num_bonafide: Number of bonafide images; 0 for none.
        num_selection: Number of selection images; 0 for none.
        protocol: "disjoint" or "legacy".

    Returns:
        The split.

    Raises:
        UserError: The protocol is unknown; there are not enough images; or there are fewer bonafide
            images than classes.

    Example:
        >>> from mcjax import data
        >>> splits = split(data.load("digits"), seed=0, num_bonafide=100, num_selection=200)
        >>> {part: len(examples["label"]) for part, examples in vars(splits).items()
        ...  if part in ("train", "bonafide", "selection", "test")}
        {'train': 997, 'bonafide': 100, 'selection': 200, 'test': 500}

    Source:
        The legacy protocol: github.com/IBM/model-sanitization (Zhao et al. 2020).
    """
    check_seed(seed)
    for option, value in {"num_bonafide": num_bonafide, "num_selection": num_selection}.items():
        if value < 0:
            raise UserError(f"{option} is {value}; give 0 or more")
    if protocol == "disjoint":
        return _disjoint(dataset, seed, num_bonafide, num_selection)
    if protocol == "legacy":
        return _legacy(dataset, seed, num_bonafide)
    raise UserError(f"unknown split protocol {protocol!r}; give one of {', '.join(PROTOCOLS)}")


def _disjoint(dataset: Dataset, seed: int, num_bonafide: int, num_selection: int) -> Splits:
    label = dataset.train["label"]
    unique, duplicates = _occurring_once(dataset)
    drawn: dict[str, np.ndarray] = {}
    pool = unique
    for part, size in (("selection", num_selection), ("bonafide", num_bonafide)):
        if size > len(pool):
            raise UserError(
                f"{size} {part} images requested, but {dataset.name} has {len(pool)} training "
                "images left to draw from; request fewer"
            )
        order = stratified_order(stream(seed, part), label[pool])
        drawn[part] = pool[order[:size]]
        pool = np.sort(pool[order[size:]])
    if num_bonafide > 0:
        _check_classes(label[drawn["bonafide"]], np.arange(dataset.num_classes), "bonafide")
    left = np.setdiff1d(np.arange(len(label)), np.concatenate(list(drawn.values())))
    if len(np.unique(label[left])) < len(np.unique(label)):
        raise UserError(
            f"{num_bonafide} bonafide and {num_selection} selection images leave a class of "
            f"{dataset.name} without training images; request fewer"
        )
    indices = {"train": left, **drawn, "test": np.arange(len(dataset.test["label"]))}
    origin = {"train": dataset.train, "bonafide": dataset.train, "selection": dataset.train}
    return _assemble(dataset, origin, indices, "disjoint", duplicates)


def _legacy(dataset: Dataset, seed: int, num_bonafide: int) -> Splits:
    num_test = len(dataset.test["label"])
    if num_bonafide > num_test // 2:
        raise UserError(
            f"{num_bonafide} bonafide images requested, but protocol 'legacy' draws them from one "
            f"half of {dataset.name}'s test set, {num_test // 2} images; request fewer"
        )
    everything = np.arange(num_test)
    indices = {
        "train": np.arange(len(dataset.train["label"])),
        "bonafide": stream(seed, "legacy").permutation(num_test)[: num_test // 2][:num_bonafide],
        "selection": everything,
        "test": everything,
    }
    return _assemble(
        dataset, {"train": dataset.train}, indices, "legacy", _occurring_once(dataset)[1]
    )


def _assemble(
    dataset: Dataset,
    origin: dict[str, Examples],
    indices: dict[str, np.ndarray],
    protocol: str,
    duplicates: dict[str, int],
) -> Splits:
    parts = {part: _take(origin.get(part, dataset.test), index) for part, index in indices.items()}
    hashes = {part: _sha256(examples) for part, examples in parts.items()}
    return Splits(**parts, hashes=hashes, protocol=protocol, indices=indices, duplicates=duplicates)


def _occurring_once(dataset: Dataset) -> tuple[np.ndarray, dict[str, int]]:
    """Indices of training images without byte-identical duplicates, and counts of duplicates."""
    train = [hashlib.sha256(image).digest() for image in dataset.train["image"]]
    test = [hashlib.sha256(image).digest() for image in dataset.test["image"]]
    counts = collections.Counter(train + test)
    unique = np.flatnonzero([counts[digest] == 1 for digest in train])
    in_test = set(test)
    return unique, {
        "train_in_test": sum(digest in in_test for digest in train),
        "within_train": len(train) - len(set(train)),
        "within_test": len(test) - len(in_test),
    }


def _fold_of(label: np.ndarray, k: int) -> np.ndarray:
    """The fold of each example: assigned round-robin, class by class."""
    fold = np.empty(len(label), np.int64)
    fold[np.argsort(label, kind="stable")] = np.arange(len(label)) % k
    return fold


def _take(examples: Examples, index: np.ndarray) -> Examples:
    return {key: value[index] for key, value in examples.items()}


def _sha256(examples: Examples) -> str:
    digest = hashlib.sha256()
    for key in ("image", "label"):
        array = np.ascontiguousarray(examples[key])
        digest.update(f"{key} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _check_classes(label: np.ndarray, classes: np.ndarray, part: str) -> None:
    missing = np.setdiff1d(classes, label)
    if len(missing):
        raise UserError(
            f"{len(label)} {part} images leave out class {', '.join(map(str, missing[:5]))}"
            f"{' ...' if len(missing) > 5 else ''}; request at least {len(classes)}, one per class, "
            "from data in which each class has images without duplicates"
        )
