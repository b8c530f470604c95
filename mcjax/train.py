"""`python -m mcjax.train`: see `mcjax.cli.train`."""

if __name__ == "__main__":
    from mcjax.cli import command, train

    with command.session(train.define_flags, train.__doc__ or ""):
        train.main()
