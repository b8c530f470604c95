"""One suspect on Fashion-MNIST: eight attacks, every defence, three bonafide sizes, five seeds.

    python -m launch.sweep --sweep configs/sweeps/repair_fashion.py
    python -m mcjax.report runs/sweeps/repair_fashion

One job per attack and seed; all sizes and methods share its networks.

Cost: 40 jobs of about two hours on two CPU cores (estimated from single methods; not measured as a whole).
"""

from mcjax.sweeps.declare import Sweep, grid

TRIGGERS = (
    "square",
    "pixel",
    "four_pixels",
    "blended",
    "sinusoidal",
    "low_frequency",
    "wanet",
    "input_aware",
)


def get_sweep():
    return Sweep("../repair_fashion.py", grid({"attack.trigger": TRIGGERS, "seed": range(5)}))
