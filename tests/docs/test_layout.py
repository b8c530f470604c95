"""The rooms of the package are imported in the order that CONTRIBUTING.md states."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = re.findall(r"^    mcjax/(\w+)/ ", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
COMMANDS = {"__main__.py", "markdown.py", "ranking.py", "torch.py"}


def rooms_of(file: Path) -> set[str]:
    """The rooms that a file imports from, in functions and under TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names]
    return {words[1] for words in parts if words[0] == "mcjax" and len(words) > 1} & set(ROOMS)


def test_every_room_is_in_the_list():
    folders = {p.parent.name for p in (ROOT / "mcjax").glob("*/__init__.py")}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room):
    above = set(ROOMS[: ROOMS.index(room) + 1])
    for file in sorted((ROOT / "mcjax" / room).rglob("*.py")):
        if (
            file.parent.name == room
            and file.name in COMMANDS
            and room in ("repair", "interop", "report")
        ):
            continue  # `python -m mcjax.repair` and its like call cli
        below = rooms_of(file) - above
        assert not below, f"{file.relative_to(ROOT)} imports from {', '.join(sorted(below))}"
