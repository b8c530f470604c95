"""Batch launches: sweeps over existing engines, and TPU VM recipes.

`python -m launch.sweep` declares jobs (`launch.jobs`), looks at what is done (`launch.state`) and
hands the rest to an engine (`launch.engines`), which runs `python -m launch.worker` for each.
"""

from mcjax.core import interrupt

interrupt.quiet_while_importing()
