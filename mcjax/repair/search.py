"""The search for evidence of a backdoor: the first stage of a repair, or all that is asked."""

import difflib
import functools
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core import fields
from mcjax.core.keys import check_key, stream
from mcjax.core.progress import progress, say
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.data.given import Examples
from mcjax.models.network import Network
from mcjax.repair.bonafide import check_suspect, num_right, tell_doubts
from mcjax.repair.evidence.control import Control, make_control
from mcjax.repair.evidence.invert import Inverted, invert
from mcjax.repair.evidence.pictures import pictures
from mcjax.repair.evidence.verdict import backdoor_found, findings
from mcjax.repair.inputs import check_inputs
from mcjax.repair.keep import KeepFn, keep_nothing, kept_fit
from mcjax.repair.options import DEFAULTS, RepairOptions, changed

OPTIONS = ("forms", "inversion_steps", "control_steps")
"""The fields of `RepairOptions` that the search has."""


def find_evidence(
    key: jax.Array,
    apply_fn: Network | Callable[[PyTree, jax.Array], jax.Array],
    suspect: PyTree,
    bonafide: Mapping[str, Any],
    *,
    selection: Mapping[str, Any] | None = None,
    verbose: bool = False,
    keep: KeepFn = keep_nothing,
    **changes: Any,
) -> dict[str, Any]:
    """Looks for evidence of a backdoor, and trains no path.

    Triggers that send clean images to one class are inverted on the suspect, and tried on a control
    network, which knows only what clean images teach (`mcjax.repair.evidence.control`). A class that is
    unusually cheap to reach, by triggers that do not work on the control, is evidence
    (`mcjax.repair.evidence.verdict`). `repair_model` with the same key and images finds the same.

    Args:
        key: Random key.
        apply_fn: The forward pass, or a `Network`, as in `repair_model`.
        suspect: The variables of the network.
        bonafide: Clean images: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        selection: More clean images, for the pictures; a fifth of `bonafide` is held out if None.
        verbose: Show progress on standard error.
        keep: See `repair_model`.
        **changes: `forms`, `inversion_steps` and `control_steps` of `RepairOptions`.

    Returns:
        "findings", one `mcjax.repair.evidence.verdict.Finding` per form, the most suspicious first;
        "backdoor_found"; "target", the class, or None; "pictures", images with the triggers;
        "control", the kind of the control (`mcjax.repair.evidence.control.CONTROLS`), or "";
        "control_accuracy", on the images held out, or None; "no_control", why it is missing, or "";
        "num_forms", "inversion_steps", "control_steps", how long was searched;
        "accuracy" of the suspect on all images, "num_images", "seconds".

    Raises:
        UserError: As `repair_model`.
        TypeError: There is no such option.

    Example:
        >>> import numpy as np
        >>> x = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)
        >>> bonafide = {"image": np.tile(x, (5, 1, 1, 1)), "label": np.tile(np.arange(4), 5)}
        >>> apply_fn = lambda w, x: x.reshape(len(x), -1) @ w
        >>> found = find_evidence(
        ...     jax.random.key(0), apply_fn, 2 * jnp.eye(4), bonafide, forms=("patch",)
        ... )
        >>> found["backdoor_found"], found["accuracy"]
        (False, 1.0)

    Source: see `mcjax.repair.evidence.invert`.
    """
    began = time.monotonic()
    if others := sorted(changes.keys() - set(OPTIONS)):
        near = difflib.get_close_matches(others[0], OPTIONS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise TypeError(
            f"find_evidence has no option {others[0]!r}; {hint}use {', '.join(OPTIONS)}"
        )
    options = changed(DEFAULTS, changes)
    fields.check("verbose", verbose, fields.flag())
    key = check_key(key)
    network, start, parts = check_inputs(apply_fn, suspect, bonafide, selection=selection)
    accuracy = check_suspect(network, start, parts)
    tell_doubts(accuracy, verbose=verbose)
    images = jax.tree.map(jnp.asarray, parts["bonafide"])
    if verbose:
        say(f"evidence: {searched(options, parts)}")
    common: dict[str, Any] = {"options": options, "verbose": verbose, "keep": keep}
    control = control_network(stream(key, "control"), network, start, images, **common)
    inverted = search(key, start, network=network, images=images, control=control, **common)
    if verbose:
        say_found(inverted, control)
    return {
        **evidence_report(inverted, parts),
        **control_report(network, control, parts),
        **search_report(options),
        "accuracy": accuracy,
        "num_images": sum(len(part["label"]) for part in parts.values()),
        "seconds": time.monotonic() - began,
    }


def evidence_report(
    inverted: Mapping[str, Inverted], parts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What inverted triggers say, for a report.

    Args:
        inverted: The result of `search`.
        parts: "selection", the images of the pictures.

    Returns:
        "findings", "backdoor_found", "target" and "pictures"; see `find_evidence`.
    """
    ranked, found = findings(inverted), backdoor_found(inverted)
    return {
        "findings": ranked,
        "backdoor_found": found,
        "target": ranked[0].target if found else None,
        "pictures": pictures(inverted, parts["selection"]),
    }


def searched(options: RepairOptions, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """What the search does, for a line of progress."""
    forms, number = len(options.forms), len(parts["bonafide"]["label"])
    tried = f"; control network, {options.control_steps} steps" if options.control_steps else ""
    return f"triggers of {forms} form{'s' if forms > 1 else ''} on {number} images{tried}"


def control_network(
    key: jax.Array,
    network: Network,
    suspect: PyTree,
    images: Batch,
    *,
    options: RepairOptions,
    verbose: bool,
    keep: KeepFn = keep_nothing,
) -> Control:
    """The suspect's control, if there can be one (`mcjax.repair.evidence.control`).

    Args:
        key: Random key.
        network: The network.
        suspect: The suspect's variables.
        images: Clean images, on the device.
        options: `control_steps` counts; 0 makes none.
        verbose: Show progress on standard error.
        keep: Keeps what was trained.
    """
    num_steps = options.control_steps
    if not num_steps:
        return Control(None, why_not="control_steps is 0")
    fit_fn = functools.partial(
        kept_fit, stream(key, "training"), name="control", verbose=verbose, keep=keep
    )
    bonafide = {name: np.asarray(v) for name, v in images.items()}
    return make_control(
        stream(key, "start"),
        network,
        suspect,
        images,
        bonafide,
        num_steps=num_steps,
        fit_fn=fit_fn,
    )


def search_report(options: RepairOptions) -> dict[str, int]:
    """How long was searched, for a report.

    Args:
        options: The options of the search.

    Returns:
        "num_forms", "inversion_steps", "control_steps".
    """
    return {
        "num_forms": len(options.forms),
        "inversion_steps": options.inversion_steps,
        "control_steps": options.control_steps,
    }


def control_report(
    network: Network, control: Control, parts: Mapping[str, Examples]
) -> dict[str, Any]:
    """What is to be said of a control, for a report.

    Args:
        network: The network.
        control: The result of `control_network`.
        parts: "selection", the images held out.

    Returns:
        "control", its kind, or ""; "control_accuracy", on the images held out, or None; "no_control", why
        it is missing, or "".
    """
    accuracy = None
    if control.variables is not None:
        right, number = num_right(network, control.variables, {"selection": parts["selection"]})
        accuracy = right / number
    return {
        "control": control.kind,
        "control_accuracy": accuracy,
        "no_control": control.why_not,
    }


def search(
    key: jax.Array,
    variables: PyTree,
    *,
    network: Network,
    images: Mapping[str, Any],
    options: RepairOptions,
    verbose: bool,
    keep: KeepFn = keep_nothing,
    draws: str = "evidence",
    control: Control | None = None,
    classes: Mapping[str, int] | None = None,
    name: str = "evidence",
) -> dict[str, Inverted]:
    """Inverts triggers form by form, which takes a while.

    Args:
        key: Random key, from which that of the draws comes.
        variables: The network's variables.
        network: The network.
        images: Clean images.
        options: Its `OPTIONS` count.
        verbose: Show progress on standard error.
        keep: Keeps the triggers of each form.
        draws: Name of the draws' key, and of what is kept.
        control: The control that the triggers are tried on as well.
        classes: The one class of each form that is searched; None searches all.
        name: What the search is called there.

    Returns:
        The triggers by form, of two restarts: one to unlearn, one to judge by.
    """
    invert_fn = functools.partial(
        invert,
        stream(key, draws),
        network,
        variables,
        images,
        num_steps=options.inversion_steps,
        num_restarts=2,
        control=control,
        classes=classes,
    )
    found: dict[str, Inverted] = {}
    with progress(name, len(options.forms), unit="form") if verbose else nullcontext() as bar:
        for form in options.forms:
            one_fn = functools.partial(_as_dict, invert_fn, form)
            like = functools.partial(jax.eval_shape, one_fn)
            found[form] = Inverted(**keep(f"{draws}_{form}", like, one_fn))
            if bar is not None:
                shown: dict[str, Any] = {}
                if classes is None:
                    shown[f"{form}_anomaly"] = findings({form: found[form]})[0].anomaly
                bar.advance(1, **shown)
    return found


def _as_dict(invert_fn: Callable[..., Mapping[str, Inverted]], form: str) -> dict[str, Any]:
    """The triggers of one form, as a checkpoint keeps them."""
    return invert_fn(forms=(form,))[form]._asdict()


def say_found(inverted: Mapping[str, Inverted], control: Control) -> None:
    """Says which triggers are evidence, or which one comes nearest to it, and if there was no control."""
    ranked = findings(inverted)
    if control.why_not:
        say(f"no control network, so that false alarms are likelier: {control.why_not}")
    for one in [one for one in ranked if one.evident] or ranked[:1]:
        said = "evidence of a backdoor" if one.evident else "no evidence; nearest to it"
        say(
            f"{said}: class {one.target} by the form {one.form}, anomaly {one.anomaly:.1f} "
            f"(threshold {one.threshold:g})"
        )
