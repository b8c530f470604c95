"""Training: many steps in one dispatch, and what they minimise."""

from mcjax.training.loop import (
    Augmentation,
    LossFn,
    StepMetrics,
    TrainState,
    init_state,
    schedule,
    sgd,
    train,
    train_steps,
)

__all__ = [
    "Augmentation",
    "LossFn",
    "StepMetrics",
    "TrainState",
    "init_state",
    "schedule",
    "sgd",
    "train",
    "train_steps",
]
