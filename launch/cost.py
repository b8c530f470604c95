"""`python -m launch.cost`: the command of `mcjax.sweeps.cost`."""

from mcjax import command
from mcjax.sweeps.cost import __doc__ as doc
from mcjax.sweeps.cost import define_flags, main

if __name__ == "__main__":
    command.run(main, define_flags, doc)
