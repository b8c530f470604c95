"""`python -m launch.cost`: see `mcjax.cli.cost`."""

if __name__ == "__main__":
    from mcjax.cli import command, cost

    with command.session(cost.define_flags, cost.__doc__ or ""):
        cost.main()
