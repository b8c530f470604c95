"""The pieces, in order of value: what ten minutes should say first stands first."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Set

from benchmarks.accelerator.record import Row

Rows = Callable[[str, Set[str], bool], Iterator[Row]]
"""`rows(argument, done, tiny)` yields {"name": .., ..}, leaving out names that are in done."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of the measurement, with a process and a time limit of its own.

    Attributes:
        name: Its name.
        module: The module of this package that has its `rows`.
        argument: What `rows` gets: a network, where there is one piece for each.
        seconds: After how long it is ended; what it has found by then stays.
        what: What it says, in a line.
    """

    name: str
    module: str
    argument: str
    seconds: int
    what: str

    @property
    def rows(self) -> Rows:
        """The generator of its rows."""
        rows: Rows = importlib.import_module(f"benchmarks.accelerator.{self.module}").rows
        return rows


def pieces(tiny: bool = False) -> list[Piece]:
    """All pieces, the most valuable first.

    Args:
        tiny: The same on the smallest sizes, one network for all: for the test on CPU.

    Example:
        >>> [piece.name for piece in pieces()][:3]
        ['ceilings', 'vgg16', 'right']
    """
    networks = ("tiny",) if tiny else ("vgg16", "preresnet26", "convfc", "wide_resnet28x10")
    first, *others = [
        Piece(name, "beside", name, 200, f"{name}: step, path, PGD, eigenvalues beside PyTorch")
        for name in networks
    ]
    return [
        Piece("ceilings", "ceilings", "", 40, "matrix product and copy: what the card can do"),
        first,
        Piece("right", "right", "", 150, "the digits runs on this device and on the CPU"),
        Piece("sweep", "sweep", "", 90, "1 to 64 small networks side by side, and one by one"),
        Piece("tests", "marked_tests", "", 120, "the tests marked `accelerator`"),
        *others[:1],
        Piece("profile", "profile", first.name, 60, "where the time of a training step goes"),
        Piece("chunk", "chunks", first.name, 90, "points of a path vmapped together"),
        Piece("compile", "compile_times", first.name, 90, "compile times, cold and warm cache"),
        *others[1:],
        Piece("autoattack", "ensemble", "", 120, "AutoAttack as a whole on three small networks"),
        Piece("study", "study", "", 240, "a backdoor study of 16 seeds in one program"),
    ]
