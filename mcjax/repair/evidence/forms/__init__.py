"""The forms of triggers that are looked for, one per file.

A form is a family of maps of images with parameters q, and a size: the smaller a trigger that sends
all images to one class, the less natural it is.
"""

from mcjax.core.errors import UserError
from mcjax.repair.evidence.forms import generated, patch, pattern, smooth, warp
from mcjax.repair.evidence.forms.form import Form

__all__ = ["FORMS", "Form", "get"]

FORMS: dict[str, Form] = {
    "patch": patch.FORM,
    "pattern": pattern.FORM,
    "smooth": smooth.FORM,
    "warp": warp.FORM,
    "generated": generated.FORM,
}
"""By name: a new form is a file like these and a line here."""


def get(name: str) -> Form:
    """A form by name.

    Raises:
        UserError: There is no form of that name.

    Example:
        >>> get("patch").learning_rate
        0.2
    """
    if name not in FORMS:
        raise UserError(f"unknown form of triggers {name!r}; use {', '.join(FORMS)}")
    return FORMS[name]
