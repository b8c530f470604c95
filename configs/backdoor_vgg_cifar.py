"""Repairs two backdoored VGG16 (no BatchNorm) on CIFAR-10 along the path between them.

    python -m mcjax.train --config configs/backdoor_vgg_cifar.py
    python -m mcjax.train --config configs/backdoor_vgg_cifar.py:all_to_all

Needs the original archives in --config.data.dir, or TFDS (mcjax[tfds]).
Recipe: the paper's official code (100 epochs of 79 steps for every repair).
Cost: not measured; intended for one accelerator.
Score: not measured.
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.backdoor()
    config.data.name = "cifar10"
    config.data.augmentation = "flip_crop"
    config.data.num_bonafide = 2500
    config.data.num_selection = 1000
    config.model.name = "vgg"
    config.model.options.depth = 16
    config.model.options.batch_norm = False
    config.endpoint.num_epochs = 100.0
    config.endpoint.batch_size = 128
    config.endpoint.learning_rate = 0.01
    config.endpoint.weight_decay = 1e-4
    config.attack.curve_epochs = 100.0
    config.repair.sizes = (2500, 1000, 500, 250, 50)
    config.repair.num_epochs = 100.0
    config.repair.steps_per_epoch = 79
    config.repair.batch_size = 128
    config.repair.weight_decay = 1e-4
    config.repair.learning_rate.path = 0.01
    config.repair.learning_rate.fine_tune = 0.015
    config.repair.learning_rate.scratch = 0.01
    config.repair.learning_rate.prune = 0.001
    config.repair.learning_rate.fine_prune = 0.015
    config.evaluation.batch_size = 1000
    return base.variant(config, arg)
