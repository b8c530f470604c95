"""Trains the generator of an input-aware trigger, or restores a trained one."""

from mcjax.attacks.poisoning.input_aware import Generated
from mcjax.core.keys import stream
from mcjax.data.batches import Batch
from mcjax.experiments.stages.training import budget, train_stage
from mcjax.runs.run import Run
from mcjax.training.generator_objective import JointTraining, generator_loss


def train_generator(run: Run, trigger: Generated, images: Batch) -> Generated:
    """Trains a generator together with a classifier, as `config.endpoint` says.

    The stage's checkpoint, `generator`, holds both; only the generator is used.

    Args:
        run: The run, or a seed's part of it.
        trigger: The trigger with the generator's initial parameters.
        images: The images of `poison(..., when="after")`, on the devices.

    Returns:
        The trigger with the trained generator.
    """
    key, options = run.key("generator"), run.config.endpoint
    start = run.network.init(stream(key, "init"))
    training = JointTraining(
        {"network": start["params"], "generator": trigger.params},
        start.get("batch_stats", {}),
        images,
        generator_loss(run.network, trigger),
        options.learning_rate,
        budget(run, options, len(images["label"])),
    )
    trained = train_stage(run, f"{run.part}generator", key, training)
    return trigger.with_params(trained["params"]["generator"])
