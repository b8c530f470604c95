"""The configs and sweeps that ship with mcjax, found by name from any folder."""

from pathlib import Path


def folder() -> Path:
    """Where they are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find(text: str, kind: str = "") -> str:
    """The file of a named recipe; paths and unknown names are returned unchanged.

    Args:
        text: What a user gave: "digits", "digits:quick", or a file.
        kind: The folder of `folder` to look in: "" for configs, "sweeps" for sweeps.

    Returns:
        The path, with what followed the colon.

    Example:
        >>> find("mine/digits.py"), find("digits:quick").endswith("configs/digits.py:quick")
        ('mine/digits.py', True)
    """
    name, colon, words = text.partition(":")
    file = folder() / kind / f"{name}.py"
    is_name = name.replace("_", "").isalnum() and not Path(name).exists()
    return f"{file}{colon}{words}" if is_name and file.is_file() else text


def names(kind: str = "") -> list[str]:
    """The names that `find` knows."""
    return sorted(file.stem for file in (folder() / kind).glob("*.py"))
