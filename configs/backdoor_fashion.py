"""Repairs two backdoored networks on the real Fashion-MNIST along the path between them.

    python -m mcjax.train --config configs/backdoor_fashion.py
    python -m mcjax.train --config configs/backdoor_fashion.py --config.attack.trigger=blended

Needs the original files: Debian's package dataset-fashion-mnist, or --config.data.dir=FOLDER.
Cost: 49 minutes per seed on two CPU cores for all sizes and methods, with another run on the machine.
Score (3 seeds, 2,500 bonafide images): suspect 0.896 / 0.994 clean accuracy / attack success, path 0.868 / 0.047,
fine-tuning 0.877 / 0.004. More in docs/results/backdoor.md.
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.backdoor()
    config.data.name = "fashion_mnist"
    config.data.num_bonafide = 2500
    config.data.num_selection = 5000
    config.model.options.width = 16
    config.endpoint.num_epochs = 3.0
    config.endpoint.batch_size = 128
    config.repair.sizes = (2500, 1000, 500, 250, 50)
    config.repair.num_epochs = 75.0
    config.repair.steps_per_epoch = 79
    config.repair.batch_size = 64
    config.repair.tolerance = 0.03
    config.repair.augmentation = "flip_crop_2"
    config.repair.weight_decay = 2e-3
    config.repair.learning_rate.path = 0.1
    config.repair.i_bau.num_rounds = 10
    config.repair.i_bau.learning_rate = 1e-3
    config.repair.i_bau.eps = 5.0
    config.repair.i_bau.perturbed = 0.2
    config.repair.i_bau.num_fixed_point = 1
    config.evaluation.batch_size = 1000
    return base.variant(config, arg)
