"""`python -m mcjax.evaluate`: see `mcjax.cli.evaluate`."""

if __name__ == "__main__":
    from mcjax.cli import command, evaluate

    with command.session(evaluate.define_flags, evaluate.__doc__ or ""):
        evaluate.main()
