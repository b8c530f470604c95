"""`python -m mcjax.train`: see `mcjax.cli.train`."""

if __name__ == "__main__":
    from mcjax.cli import command, train

    command.run(train.main, train.define_flags, train.__doc__)
