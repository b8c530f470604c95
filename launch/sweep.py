"""`python -m launch.sweep`: see `mcjax.cli.sweep`."""

if __name__ == "__main__":
    from mcjax.cli import command, sweep

    with command.session(sweep.define_flags, sweep.__doc__ or ""):
        sweep.main()
