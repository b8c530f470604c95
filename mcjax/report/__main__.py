"""`python -m mcjax.report`: see `mcjax.cli.report`."""

if __name__ == "__main__":
    from mcjax.cli import command, report

    with command.session(report.define_flags, report.__doc__ or "", takes_words=True) as words:
        report.main(*words)
