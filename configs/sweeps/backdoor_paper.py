"""The paper's backdoor tables: VGG16 on CIFAR-10 and PreResNet-26 on SVHN, 5 bonafide sizes, 3 seeds.

    MCJAX_DATA=FOLDER python -m launch.sweep --sweep configs/sweeps/backdoor_paper.py --engine ray --tpus 1
    python -m launch.cost --sweep configs/sweeps/backdoor_paper.py

One job per network and seed: all sizes and repairs share the seed's networks. Intended for accelerators, hence
bfloat16. FOLDER holds the original archives of both data sets.

Cost: not measured; an estimate is in docs/scale.md.
"""

import os
import runpy
from pathlib import Path

from mcjax.sweeps.declare import Sweep, grid

CONFIGS = Path(__file__).parents[1]


def get_sweep():
    bases = [base(name) for name in ("backdoor_vgg_cifar.py", "backdoor_resnet_svhn.py")]
    # model.name keeps its value; listed as an override, it appears in a job's id.
    return [Sweep(b, grid({"model.name": (b.model.name,), "seed": range(3)})) for b in bases]


def base(name):
    config = runpy.run_path(str(CONFIGS / name))["get_config"]()
    config.model.bfloat16 = True
    config.data.dir = os.environ.get("MCJAX_DATA", "")  # where, not what: no part of a job's hash
    return config
