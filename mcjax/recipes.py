"""Finds the configs and sweeps that ship with mcjax by name."""

from pathlib import Path


def folder() -> Path:
    """Their folder: inside the installed package, or next to it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


def find(text: str, kind: str = "") -> str:
    """The path of a named recipe; paths and unknown names are returned unchanged.

    Args:
        text: A name or a file: "digits", "digits:quick", "mine/digits.py".
        kind: Subfolder of `folder` to search: "" for configs, "sweeps" for sweeps.

    Returns:
        The path, including the part after the colon.

    Example:
        >>> find("mine/digits.py"), find("digits:quick").endswith("configs/digits.py:quick")
        ('mine/digits.py', True)
    """
    name, colon, words = text.partition(":")
    file = folder() / kind / f"{name}.py"
    is_name = name.replace("_", "").isalnum() and not Path(name).exists()
    return f"{file}{colon}{words}" if is_name and file.is_file() else text


def names(kind: str = "") -> list[str]:
    """The names known to `find`."""
    return sorted(file.stem for file in (folder() / kind).glob("*.py"))
