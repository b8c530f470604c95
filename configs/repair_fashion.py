"""Repairs one suspect on the real Fashion-MNIST with every defence, each chosen without the trigger.

    python -m mcjax.train --config configs/repair_fashion.py
    python -m mcjax.train --config configs/repair_fashion.py --config.attack.trigger=wanet

All paths begin at the suspect, and their far ends are trained. Every method gets the same images and as many
gradients as 5,000 steps of batch 64, seven of them at each of four values of a hyperparameter. 1,000 clean images
choose t, the thresholds and these values. Needs the original files: Debian's package dataset-fashion-mnist, or
--config.data.dir=FOLDER.
Cost: not measured as a whole. On one CPU core 3,000 steps take about 25 s, the taught line 75 s with its searches.
Score (trials): docs/results/repair.md.
"""

from mcjax.runs import config as base


def get_config(arg=None):
    config = base.one_suspect()
    config.data.name = "fashion_mnist"
    config.model.options.width = 16
    config.endpoint.num_epochs = 3.0
    config.endpoint.batch_size = 128
    config.repair.num_epochs = 50.0
    config.repair.steps_per_epoch = 100
    config.repair.batch_size = 64
    config.repair.augmentation = "flip_crop_2"
    config.repair.i_bau.num_rounds = 10
    config.repair.i_bau.learning_rate = 1e-3
    config.repair.i_bau.eps = 5.0
    config.repair.i_bau.perturbed = 0.2
    config.repair.i_bau.num_fixed_point = 1
    return base.variant(config, arg)
