"""`python -m mcjax.report.ranking`: see `mcjax.cli.ranking`."""

if __name__ == "__main__":
    from mcjax.cli import command, ranking

    with command.session(ranking.define_flags, ranking.__doc__ or "", takes_words=True) as words:
        ranking.main(*words)
