"""Measures robustness along paths between regular and adversarial networks on Fashion-MNIST.

    python -m mcjax.train --config configs/evasion_fashion.py

Needs the original files: Debian's package dataset-fashion-mnist, or --config.data.dir=FOLDER.
eps 0.1 in l_inf, PGD-7 in training, PGD-20 in evaluation.
Cost: 16 minutes per seed on two CPU cores with other runs on them, 21 points and no robust path.
Score (3 seeds): robust accuracy 0.02 of regular, 0.74 of adversarial networks; 0.10 in the middle
of the path between two adversarial ones. More in docs/results/evasion.md.
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.evasion()
    config.data.name = "fashion_mnist"
    config.model.options.width = 16
    config.endpoint.num_epochs = 4.0
    config.endpoint.batch_size = 128
    config.curve.num_epochs = 5.0
    config.curve.batch_size = 128
    config.adversarial.num_steps = 7
    config.robust_path.num_steps = 7
    config.evaluation.num_points = 31
    config.evaluation.train_images = 10000
    config.evaluation.batch_size = 1000
    config.evaluation.robust_images = 1000
    config.evaluation.robust_batch_size = 250
    return base.variant(config, arg)
