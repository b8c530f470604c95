"""Repairs two backdoored networks on handwritten digits along the path between them.

    python -m mcjax.train --config configs/backdoor_digits.py
    python -m mcjax.train --config configs/backdoor_digits.py:all_to_all

Cost: 1 min 15 s (1 min 15 s to 1 min 18 s) on 2 CPU cores, compilation included.
Score (3 seeds, 400 bonafide images): suspect 0.965 / 0.998 clean accuracy / attack success, path at its chosen t
0.963 / 0.343, at t = 0.5 0.961 / 0.171, fine-tuning 0.970 / 0.947. More in docs/results/backdoor.md.
"""

from mcjax.runs import config as base


def get_config(arg=None):
    config = base.backdoor()
    config.model.options.width = 16
    return base.variant(config, arg)
