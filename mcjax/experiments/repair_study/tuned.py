"""A study's methods that make one network, at every value of the hyperparameter that is tuned."""

from mcjax.core.errors import Diverged
from mcjax.core.processes import several
from mcjax.core.progress import say
from mcjax.evaluation.networks_as_path import Stacked
from mcjax.experiments.repair_study.study import Study
from mcjax.repair.methods import METHODS
from mcjax.repair.methods.method import Family
from mcjax.runs.config import flat


def is_tuned(study: Study, name: str) -> bool:
    """Whether a study chooses a hyperparameter of a method that makes one network."""
    return bool(study.options.tune) and METHODS[name].tuning is not None


def tuned(study: Study, name: str, size: int) -> tuple[Family, list[float]]:
    """The networks of a method at every value that is tried, as a family.

    Args:
        study: The study.
        name: The method.
        size: Number of bonafide images.

    Returns:
        The family, without values at which the training diverged, and the seconds of each.

    Raises:
        Diverged: None is left; or one, where several processes run and can't leave it out together.
    """
    tuning, place = METHODS[name].tuning, f"{study.place(name, size)}_tuned"
    if tuning is None:
        raise ValueError(f"{name} has nothing to tune")
    if place in study.memory:
        return study.memory[place]
    found, error = {}, None
    for value in tuning.tried(flat(study.options)):
        try:
            found[value] = study.repaired(name, size, value)
        except Diverged as diverged:
            if several():
                raise
            say(f"{study.place(name, size, value)}: left out; {diverged}")
            error = diverged
    if not found and error is not None:
        raise error
    networks = Stacked.of([network for network, _ in found.values()])
    family = Family(tuning.setting, tuple(found), networks)
    study.memory[place] = family, [seconds for _, seconds in found.values()]
    return study.memory[place]
