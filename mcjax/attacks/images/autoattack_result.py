"""The result of `autoattack`."""

import dataclasses
import functools

import jax
import numpy as np


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "fooled_by", "zero_gradient"],
    meta_fields=["attacks", "notes"],
)
@dataclasses.dataclass(frozen=True)
class AutoAttackResult:
    """The result of `autoattack`.

    Attributes:
        images: Adversarial images where an attack succeeded, else the originals, [B, H, W, C].
        fooled_by: 0: misclassified without an attack; k: by `attacks[k - 1]`; -1: by none. int [B].
        zero_gradient: Whether the image is correct and the gradient of the loss (log odds) is exactly
            zero there: such images withstand gradient attacks for a wrong reason. bool [B].
        attacks: Names of the attacks, in order.
        notes: What was different from the standard, e.g. with few classes.
    """

    images: jax.Array
    fooled_by: jax.Array
    zero_gradient: jax.Array
    attacks: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def robust(self) -> jax.Array:
        """Whether an image is correct and withstands every attack, bool [B]."""
        return self.fooled_by == -1

    @property
    def accuracy(self) -> float:
        """Fraction of images that are correct without an attack."""
        return float((np.asarray(self.fooled_by) != 0).mean())

    @property
    def robust_accuracy(self) -> float:
        """Fraction of images that withstand every attack."""
        return float(np.asarray(self.robust).mean())

    @property
    def by_attack(self) -> dict[str, int]:
        """Number of images that each attack fooled first."""
        counts = np.bincount(np.asarray(self.fooled_by) + 1, minlength=len(self.attacks) + 2)
        return {name: int(counts[i + 2]) for i, name in enumerate(self.attacks)}

    @property
    def zero_gradient_share(self) -> float:
        """Fraction of the correct images whose gradient is zero."""
        return float(self.zero_gradient.sum() / max(1, int((self.fooled_by != 0).sum())))
