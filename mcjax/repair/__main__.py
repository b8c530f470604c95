"""`python -m mcjax.repair`: see `mcjax.cli.repair`."""

if __name__ == "__main__":
    from mcjax.cli import command, repair

    command.run(repair.main, repair.define_flags, repair.__doc__)
