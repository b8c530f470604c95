"""`python -m mcjax.repair`: see `mcjax.cli.repair`."""

if __name__ == "__main__":
    from mcjax.cli import command, repair

    with command.session(repair.define_flags, repair.__doc__ or ""):
        repair.main()
