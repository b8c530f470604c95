"""Two networks with injected errors on handwritten digits, repaired along the path between them.

python -m mcjax.train --config configs/injection_digits.py
python -m mcjax.train --config configs/injection_digits.py --config.attack.method=bit_flips
"""

from mcjax import config as base


def get_config(arg=None):
    config = base.injection()
    config.model.options.width = 16
    return base.variant(config, arg)
