"""Joins two pre-activation ResNet-26 on SVHN by a curve.

    python -m mcjax.train --config configs/resnet_svhn.py

Needs the original archives in --config.data.dir, or TFDS (mcjax[tfds]).
Recipe: epochs and rates of the curve from the official code of Zhao et al. 2020.
Cost: not measured; intended for one accelerator.
Score: not measured.
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.connect()
    config.data.name = "svhn_cropped"
    config.data.augmentation = "none"
    config.model.name = "preresnet"
    config.model.options.depth = 26
    config.endpoint.num_epochs = 100.0
    config.endpoint.batch_size = 128
    config.endpoint.learning_rate = 0.1
    config.endpoint.weight_decay = 3e-4
    config.curve.num_epochs = 100.0
    config.curve.batch_size = 128
    config.curve.learning_rate = 0.01
    config.curve.weight_decay = 1e-4
    config.evaluation.batch_size = 1000
    config.evaluation.plane_images = 2000
    return base.variant(config, arg)
