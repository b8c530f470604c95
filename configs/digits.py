"""The main job: joins two small networks on scikit-learn's handwritten digits by a curve.

    python -m mcjax.train --config configs/digits.py

Cost: 24 s (23 to 31 s) on 2 CPU cores, compilation included.
Score (seed 0), test accuracy: ends 0.978 and 0.988, the curve's worst point 0.974, the straight line's
worst point 0.520. More in docs/results/connect.md.
"""

from mcjax.runs import config as base


def get_config(arg=None):
    config = base.connect()
    config.model.options.width = 16
    return base.variant(config, arg)
