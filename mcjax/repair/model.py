"""Repairing one suspect network with clean images: evidence, the path, the choice of t."""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core import fields
from mcjax.core.keys import check_key
from mcjax.core.tree import PyTree
from mcjax.models.given import as_given, as_network
from mcjax.models.network import Network
from mcjax.repair.bonafide import check_suspect, tell_doubts
from mcjax.repair.inputs import check_inputs
from mcjax.repair.keep import KeepFn, keep_nothing
from mcjax.repair.options import DEFAULTS, RepairOptions, changed, check_ends
from mcjax.repair.repaired import NothingRepaired, Repaired
from mcjax.repair.stages import Stages


def repair_model(
    key: jax.Array,
    apply_fn: Network | Callable[[PyTree, jax.Array], jax.Array],
    suspect: PyTree,
    bonafide: Mapping[str, Any],
    second: PyTree | None = None,
    *,
    selection: Mapping[str, Any] | None = None,
    second_is_clean: bool = False,
    tolerance: float = 0.02,
    options: RepairOptions = DEFAULTS,
    verbose: bool = False,
    keep: KeepFn = keep_nothing,
    **changes: Any,
) -> Repaired:
    """Finds a path of low loss from a suspect network on, and takes a point of it.

    1. Triggers that send clean images to one class are inverted on the suspect
       (`mcjax.repair.evidence`), and tried on a control, the suspect without what clean images do not
       teach; a class that is unusually cheap to reach on the suspect alone is evidence of a backdoor.
    2. The suspect is taught: it learns its own answers to clean images, and unlearns the inverted
       triggers (`mcjax.repair.objective`). The path is the straight line to the result, on which t is
       the strength of the repair.
    3. Or the path is a curve that is taught so, to a far end that is trained with it, a second network,
       or the suspect's own un-aligned copy: the same function with its channels permuted to be least
       alike (`mcjax.alignment`).
    4. Among the points that lose at most `tolerance` on images held out for that, one with the lowest
       estimated attack success is chosen (`mcjax.repair.choose`).

    All of it uses clean images alone. The true trigger is never looked at, and nothing here proves
    that it is gone.

    Args:
        key: Random key.
        apply_fn: The forward pass `apply_fn(variables, x) -> logits`, x [B, H, W, C] in [0, 1]; or
            a `Network`, which a network with BatchNorm or dropout needs.
        suspect: The variables of the network to repair.
        bonafide: Clean images: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        second: Variables of a second network of the same structure, suspect too; None takes what
            `options.end` says, the taught suspect. An un-aligned copy counts as suspect; a network without
            channels that can be permuted gets a fine-tuned copy instead, and the report says so.
        selection: More clean images, to choose t by; a fifth of `bonafide` is held out if None.
        second_is_clean: The second network is known to be clean: only the first is to be far from.
        tolerance: Accuracy on the selection images that the repair may cost, a fraction.
        options: How the path is found and trained.
        verbose: Show progress on standard error.
        keep: Keeps the results of trainings and searches, so that a call with the same arguments goes on
            after them (`mcjax.repair.keep`).
        **changes: Single fields of `options`, such as num_steps=500.

    Returns:
        The repaired variables, t, the curve and a report. Where no point was accurate enough, the
        suspect, with `ok` False, `reason` and a warning.

    Raises:
        UserError: An option that no repair can have, which is found before anything is computed;
            images or labels that do not fit the network, a class without images, networks of
            different structure, parameters or a loss that are not finite.

    Example:
        >>> import numpy as np
        >>> x = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)
        >>> bonafide = {"image": np.tile(x, (5, 1, 1, 1)), "label": np.tile(np.arange(4), 5)}
        >>> apply_fn = lambda w, x: x.reshape(len(x), -1) @ w
        >>> a, b = 2 * jnp.eye(4), 3 * jnp.eye(4)
        >>> quick = {"num_steps": 4, "forms": ("patch",)}
        >>> fixed = repair_model(jax.random.key(0), apply_fn, a, bonafide, b, **quick)
        >>> round(fixed.t, 2), fixed.variables.shape
        (0.5, (4, 4))

    Source: Zhao et al. 2020, section 4.
    """
    began = time.monotonic()
    o = changed(options, changes)
    fields.check("second_is_clean", second_is_clean, fields.flag())
    fields.check("tolerance", tolerance, fields.number(0, 1))
    fields.check("verbose", verbose, fields.flag())
    key = check_key(key)
    check_ends(o, has_second=second is not None, second_is_clean=second_is_clean)
    network, start, parts = check_inputs(apply_fn, suspect, bonafide, second, selection)
    suspect_accuracy = check_suspect(network, start, parts)
    tell_doubts(suspect_accuracy, verbose=verbose)
    stages = Stages(
        key,
        network,
        start,
        parts,
        given=None if second is None else as_network(apply_fn, second)[1],
        given_is_clean=second_is_clean,
        options=o,
        tolerance=tolerance,
        verbose=verbose,
        keep=keep,
    )
    report, t = stages.report, stages.t
    fixed = suspect if t is None else as_given(stages.points(jnp.float32(t)), suspect, apply_fn)
    report["seconds"] = time.monotonic() - began
    result = Repaired(fixed, t, stages.curve, report)
    if not result.ok:
        warnings.warn(f"nothing was repaired: {result.reason}", NothingRepaired, stacklevel=2)
    return result
