"""Repairs two networks with injected errors on handwritten digits along the path between them.

    python -m mcjax.train --config configs/injection_digits.py
    python -m mcjax.train --config configs/injection_digits.py --config.attack.method=bit_flips

Cost: 1 min 25 s (1 min 24 s to 1 min 28 s) on 2 CPU cores, compilation included.
Score (3 seeds, 400 bonafide images): suspect 0.946 / 1.000 clean accuracy / injection success, path at its chosen t
0.952 / 0.000, at t = 0.1 0.973 / 0.000, fine-tuning 0.978 / 0.000. More in docs/results/injection.md.
"""

from mcjax.runs import config as base


def get_config(arg=None):
    config = base.injection()
    config.model.options.width = 16
    return base.variant(config, arg)
