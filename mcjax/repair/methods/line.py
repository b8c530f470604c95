"""The straight line from the suspect to the second network; t = 0.5 is their average."""

from mcjax.curves import Curve
from mcjax.repair.methods.method import Case, Method


def run(case: Case) -> Curve:
    """The straight line of a case, which nothing trains."""
    second = case.second_fn()
    return case.curve.curve_type.connect(case.suspect["params"], second["params"])


METHOD = Method(run=run, kind="path", uses_images=False, needs_second=True)
