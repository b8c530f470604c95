"""Repairs one suspect VGG16 with BatchNorm on CIFAR-10 with every defence, each chosen without the trigger.

    python -m mcjax.train --config configs/repair_vgg_cifar.py
    python -m mcjax.train --config configs/repair_vgg_cifar.py --config.attack.trigger=wanet

Needs the original archives in --config.data.dir, or TFDS (mcjax[tfds]). All paths begin at the suspect, and
their far ends are trained; every training of a method gets the same images and as many gradients.
Cost: not measured; intended for one accelerator.
Score: not measured.
"""

from mcjax.runs import config as base


def get_config(arg=None):
    config = base.one_suspect()
    config.data.name = "cifar10"
    config.data.augmentation = "flip_crop"
    config.model.name = "vgg"
    config.model.options.depth = 16
    config.model.options.batch_norm = True
    config.endpoint.num_epochs = 100.0
    config.endpoint.batch_size = 128
    config.endpoint.learning_rate = 0.05
    config.repair.num_epochs = 100.0
    config.repair.steps_per_epoch = 79
    config.repair.batch_size = 128
    config.repair.augmentation = "flip_crop"
    return base.variant(config, arg)
