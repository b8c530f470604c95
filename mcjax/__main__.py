"""`python -m mcjax WORD ...` is the same as `mcjax WORD ...`."""

from mcjax.cli import main

if __name__ == "__main__":
    main()
