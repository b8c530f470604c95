"""`python -m mcjax.evaluate`: see `mcjax.cli.evaluate`."""

if __name__ == "__main__":
    from mcjax.cli import command, evaluate

    command.run(evaluate.main, evaluate.define_flags, evaluate.__doc__)
