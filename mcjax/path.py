"""`python -m mcjax.path`: see `mcjax.cli.path`. Imported, it is `mcjax.evaluation.path`, its old name."""

if __name__ == "__main__":
    from mcjax.cli import command, path

    with command.session(path.define_flags, path.__doc__ or "", resumes=False):
        path.main()
else:
    import importlib
    import sys

    from mcjax.core.moved import MOVED

    sys.modules[__name__] = importlib.import_module(MOVED[__name__])
