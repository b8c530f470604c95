"""The hyperparameter that a study tunes of a method that makes one network (`config.repair.tune`)."""

import dataclasses

from mcjax.repair.methods.method import Case, Tuning


def by_length(method: str, *, rounds: str = "") -> Tuning:
    """The strength: half of the steps, all of them, and all with two and four times the learning rate.

    No value takes more steps than the budget has, so that every method keeps to it.

    Args:
        method: The method, whose learning rate counts.
        rounds: The setting that counts its rounds, if it has its own instead of the budget's steps.

    Returns:
        The tuning; a strength of 1 is the config's own setting.

    Example:
        >>> by_length("fine_tune").values
        (0.5, 1.0, 2.0, 4.0)
    """
    rate = f"{method}.learning_rate" if rounds else f"learning_rate.{method}"

    def at(case: Case, value: float) -> Case:
        options = dict(case.options)
        options[rate] *= max(1.0, value)
        if rounds:
            options[rounds] = max(1, round(share(value) * options[rounds]))
        steps = max(1, round(share(value) * case.budget.num_steps))
        budget = dataclasses.replace(case.budget, num_steps=steps)
        return dataclasses.replace(case, budget=budget, options=options)

    return Tuning("strength", (0.5, 1.0, 2.0, 4.0), at, lambda options: 1.0, share)


def share(strength: float) -> float:
    """The share of the budget's steps that a training with a strength takes.

    Example:
        >>> share(0.5), share(4.0)
        (0.5, 1.0)
    """
    return min(1.0, strength)


def by_setting(name: str, values: tuple[float, ...]) -> Tuning:
    """The values of one of a method's own settings, and the config's own.

    Args:
        name: The setting, "METHOD.NAME".
        values: From the gentlest to the strongest, ascending or descending.

    Returns:
        The tuning.

    Example:
        >>> by_setting("ft_sam.rho", (1.0, 2.0, 4.0)).tried({"ft_sam.rho": 3.0})
        (1.0, 2.0, 3.0, 4.0)
    """

    def at(case: Case, value: float) -> Case:
        return dataclasses.replace(case, options={**case.options, name: value})

    noun = name.rpartition(".")[2]
    return Tuning(noun, values, at, lambda options: float(options[name]), lambda value: 1.0)
