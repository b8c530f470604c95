"""Random orders in which every prefix is stratified by class."""

import zlib

import numpy as np

from mcjax.keys import check_seed


def stream(seed: int, name: str) -> np.random.Generator:
    """A NumPy generator for a named purpose, independent of those for other names.

    Args:
        seed: The experiment's seed, 0 to 2^32 - 1.
        name: The purpose, e.g. "selection".

    Returns:
        The generator; deterministic for a given seed and name, on every machine.
    """
    return np.random.default_rng([check_seed(seed), zlib.crc32(name.encode())])


def stratified_order(
    rng: np.random.Generator, label: np.ndarray, *, proportional: bool = False
) -> np.ndarray:
    """A random order of examples in which every prefix is stratified by class.

    Args:
        rng: NumPy generator.
        label: int [N].
        proportional: If False, class counts in a prefix differ by at most one until a class runs
            out. If True, class proportions in a prefix match those of the whole.

    Returns:
        int64 [N], a permutation of 0 ... N - 1.

    Example:
        >>> label = np.array([0, 0, 0, 0, 0, 0, 1, 1])
        >>> label[stratified_order(np.random.default_rng(0), label)][:4].sum()
        np.int64(2)
        >>> label[stratified_order(np.random.default_rng(0), label, proportional=True)][:4].sum()
        np.int64(1)
    """
    shuffled = rng.permutation(len(label))
    place = np.empty(len(label))  # rank of each shuffled example within its class
    for value in np.unique(label):
        members = np.flatnonzero(label[shuffled] == value)
        step = 1 / len(members) if proportional else 1.0
        place[members] = (np.arange(len(members)) + 0.5) * step
    # `shuffled` is random and the sort is stable, so ties between classes are broken at random.
    return shuffled[np.argsort(place, kind="stable")]


def holdout(label: np.ndarray, *, num_test: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits examples into a training and a test set, stratified by class.

    Args:
        label: int [N].
        num_test: Size of the test set.
        seed: Seed; the split is deterministic for given labels, size and seed.

    Returns:
        Indices of the training and of the test examples, each in ascending order.

    Example:
        >>> train, test = holdout(np.array([0, 0, 0, 1, 1, 1]), num_test=2, seed=0)
        >>> len(train), len(test)
        (4, 2)
    """
    order = stratified_order(stream(seed, "holdout"), label, proportional=True)
    return np.sort(order[num_test:]), np.sort(order[:num_test])
