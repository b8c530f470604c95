"""Measures robustness along paths between regular and adversarial VGG16 on CIFAR-10.

    python -m mcjax.train --config configs/evasion_vgg_cifar.py

Needs the original archives in --config.data.dir, or TFDS (mcjax[tfds]).
eps 8/255 in l_inf, PGD-10, as in the paper's official code.
Cost: not measured; intended for one accelerator.
Score: not measured.
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.evasion()
    config.data.name = "cifar10"
    config.data.augmentation = "flip_crop"
    config.model.name = "vgg"
    config.model.options.depth = 16
    config.model.options.batch_norm = False
    config.endpoint.num_epochs = 200.0
    config.endpoint.batch_size = 128
    config.endpoint.learning_rate = 0.01
    config.endpoint.weight_decay = 1e-4
    config.curve.num_epochs = 100.0
    config.curve.batch_size = 128
    config.curve.learning_rate = 0.01
    config.curve.weight_decay = 1e-4
    for part in (config.attack, config.adversarial):
        part.eps = 8 / 255
        part.step_size = 2 / 255
        part.num_steps = 10
    config.evaluation.num_points = 31
    config.evaluation.batch_size = 1000
    config.evaluation.robust_images = 1000
    config.evaluation.robust_batch_size = 250
    return base.variant(config, arg)
