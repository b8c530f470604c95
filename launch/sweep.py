"""`python -m launch.sweep`: the command of `mcjax.sweeps.launcher`."""

from mcjax import command
from mcjax.sweeps.launcher import __doc__ as doc
from mcjax.sweeps.launcher import define_flags, main

if __name__ == "__main__":
    command.run(main, define_flags, doc)
