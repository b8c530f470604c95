"""Robustness along paths between regular and adversarially trained networks on handwritten digits.

python -m mcjax.train --config configs/evasion_digits.py
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.evasion()
    config.model.options.width = 16
    config.robust_path.pairs = config.pairs
    return base.variant(config, arg)
