"""Joins two small convolutional networks on the real Fashion-MNIST by a curve.

    python -m mcjax.train --config configs/fashion_cnn.py

Needs the original files: Debian's package dataset-fashion-mnist, or --config.data.dir=FOLDER.
Cost: 7 min 44 s (7 min 42 s to 7 min 44 s) on 2 CPU cores, compilation included.
Score (seed 0), test accuracy: ends 0.9114 and 0.9170; the curve's worst point 0.9063, 0.0051 below the
worse end; the straight line's worst point 0.1566.
"""

from mcjax.runs import config as base


def get_config(arg=None):
    config = base.connect()
    config.data.name = "fashion_mnist"
    config.model.name = "cnn"
    config.model.options.width = 16
    config.endpoint.num_epochs = 8.0
    config.endpoint.batch_size = 128
    config.endpoint.learning_rate = 0.05
    config.endpoint.weight_decay = 5e-4
    config.curve.num_epochs = 10.0
    config.curve.batch_size = 128
    config.curve.learning_rate = 0.05
    config.curve.weight_decay = 5e-4
    config.evaluation.batch_size = 1000
    config.evaluation.plane_images = 1000
    return base.variant(config, arg)
