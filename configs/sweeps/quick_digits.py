"""A sweep of seconds, to see how sweeps go: two seeds and two kinds of curve, on fake images.

python -m launch.sweep --sweep configs/sweeps/quick_digits.py --parallel 2

Cost: half a minute on two CPU cores.
"""

from mcjax.sweeps.declare import Sweep, grid


def get_sweep():
    return Sweep("../digits.py:quick", grid({"seed": range(2), "curve.num_bends": (1, 2)}))
