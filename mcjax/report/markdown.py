"""`python -m mcjax.report.markdown`: see `mcjax.cli.markdown`."""

if __name__ == "__main__":
    from mcjax.cli import command, markdown

    with command.session(markdown.define_flags, markdown.__doc__ or "", takes_words=True) as words:
        markdown.main(*words)
