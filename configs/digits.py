"""The main job: two small networks on scikit-learn's handwritten digits, and the curve between.

    python -m mcjax.train --config configs/digits.py

Cost: not measured.
Score: not measured.
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.connect()
    config.model.options.width = 16
    return base.variant(config, arg)
