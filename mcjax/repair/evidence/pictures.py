"""Images with the inverted triggers, for a reader to look at."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.data.batches import to_unit
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.invert import Inverted
from mcjax.repair.evidence.verdict import findings

CLEAN = "clean"


def pictures(
    inverted: Mapping[str, Inverted], examples: Mapping[str, Any], *, num_images: int = 8
) -> dict[str, np.ndarray]:
    """Applies the triggers that are evidence, or else the most suspicious one.

    Of a form's restarts the cheapest trigger is shown.

    Args:
        inverted: The result of `mcjax.repair.evidence.invert.invert`.
        examples: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N]; the first image of each class
            is taken, without the triggers' own classes if others are left.
        num_images: The largest number of images.

    Returns:
        {"clean": images, form: the same images with its trigger}, [n, H, W, C] in [0, 1], the most
        suspicious form first.
    """
    ranked = findings(inverted)
    shown = [one for one in ranked if one.evident] or ranked[:1]
    classes, first = np.unique(examples["label"], return_index=True)
    others = first[~np.isin(classes, [one.target for one in shown])]
    index = (others if len(others) else first)[:num_images]
    x = to_unit(jnp.asarray(examples["image"][index]))
    found = {CLEAN: np.asarray(x)}
    for one in shown:
        of_form = inverted[one.form]
        cheapest = int(of_form.cost[:, one.target].argmin())
        q = jax.tree.map(lambda v, i=(cheapest, one.target): v[i], of_form.triggers)
        found[one.form] = np.asarray(FORMS[one.form].stamp(q, x))
    return found
