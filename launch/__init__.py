"""Commands that start sweeps (`mcjax.sweeps`), and recipes for TPU VMs, SkyPilot and Slurm."""

from mcjax import interrupt

interrupt.quiet_while_importing()
