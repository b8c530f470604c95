"""Strengths of methods that are one training: what a study tries when `config.repair.tune` is set."""

import dataclasses

from mcjax.repair.methods.method import Case, Strength

STRENGTHS = (0.5, 1.0, 2.0, 4.0)


def by_length(method: str, *, rounds: str = "") -> Strength:
    """Half of the steps, all of them, and all with two and four times the learning rate.

    No value takes more steps than the budget has, so that every method keeps to it.

    Args:
        method: The method, whose learning rate counts.
        rounds: The setting that counts its rounds, if it has its own instead of the budget's steps.

    Returns:
        The strength; 1 is the config's own setting.

    Example:
        >>> by_length("fine_tune").trainings
        3.5
    """
    rate = f"{method}.learning_rate" if rounds else f"learning_rate.{method}"

    def at(case: Case, value: float) -> Case:
        share, options = min(1.0, value), dict(case.options)
        options[rate] *= max(1.0, value)
        if rounds:
            options[rounds] = max(1, round(share * options[rounds]))
        steps = max(1, round(share * case.budget.num_steps))
        budget = dataclasses.replace(case.budget, num_steps=steps)
        return dataclasses.replace(case, budget=budget, options=options)

    trainings = sum(min(1.0, value) for value in STRENGTHS)
    return Strength("strength", STRENGTHS, at, lambda options: 1.0, trainings)


def by_setting(name: str, values: tuple[float, ...]) -> Strength:
    """The values of one of a method's own settings.

    Args:
        name: The setting, "METHOD.NAME".
        values: From the gentlest to the strongest.

    Returns:
        The strength.
    """

    def at(case: Case, value: float) -> Case:
        return dataclasses.replace(case, options={**case.options, name: value})

    noun = name.rpartition(".")[2]
    return Strength(noun, values, at, lambda options: float(options[name]), float(len(values)))
