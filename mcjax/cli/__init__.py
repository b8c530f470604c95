"""The commands: each reads flags, calls the library and prints."""


def main() -> None:
    """The console script `mcjax`; see `mcjax.cli.entry`."""
    from mcjax.cli import entry

    entry.main()
