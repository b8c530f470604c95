"""The paper's whole backdoor table on handwritten digits: every repair, 4 bonafide sizes, 3 seeds.

    python -m launch.sweep --sweep configs/sweeps/backdoor_digits.py
    python -m mcjax.report runs/sweeps/backdoor_digits

One job per seed: it trains the two tampered networks once, for all sizes and repairs. One job per seed and
size ({"seed": range(3), "repair.sizes": ((400,), (200,), (100,), (50,))}) would train them four times.

Cost: 3 jobs of 75 seconds on two CPU cores.
"""

from mcjax.sweeps.declare import Sweep, grid


def get_sweep():
    return Sweep("../backdoor_digits.py", grid({"seed": range(3)}))
