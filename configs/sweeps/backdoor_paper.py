"""The paper's backdoor tables: VGG16 on CIFAR-10 and PreResNet-26 on SVHN, 5 bonafide sizes, 3 seeds.

    MCJAX_DATA=FOLDER python -m launch.sweep --sweep configs/sweeps/backdoor_paper.py --engine ray --tpus 1
    python -m launch.cost --sweep configs/sweeps/backdoor_paper.py

A job a network and seed: all sizes and repairs share the seed's networks. Made for accelerators, hence
bfloat16. FOLDER has the original archives of both data sets.

Cost: not measured; on paper in docs/scale.md.
"""

import os
import runpy
from pathlib import Path

from mcjax.sweeps.declare import Sweep, grid

CONFIGS = Path(__file__).parents[1]


def get_sweep():
    bases = [base(name) for name in ("backdoor_vgg_cifar.py", "backdoor_resnet_svhn.py")]
    # The name is what it is already; so it stands in a job's id.
    return [Sweep(b, grid({"model.name": (b.model.name,), "seed": range(3)})) for b in bases]


def base(name):
    config = runpy.run_path(str(CONFIGS / name))["get_config"]()
    config.model.bfloat16 = True
    config.data.dir = os.environ.get("MCJAX_DATA", "")  # where, not what: no part of a job's hash
    return config
