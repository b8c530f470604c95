"""Two networks with a backdoor on handwritten digits, repaired along the path between them.

python -m mcjax.train --config configs/backdoor_digits.py
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.backdoor()
    config.model.options.width = 16
    return base.variant(config, arg)
