"""Compiles direct.c, winograd.c and pool.c with the machine's C compiler, once, into the user's cache folder.

A library is kept only after it computed a few convolutions correctly in a process of its own, so that
one that this processor or this jaxlib cannot run ends that process and not the user's. What failed is
kept, too, as a line of text, and not tried again until compiler, processor, jaxlib or source change.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import jaxlib

SOURCES = tuple(Path(__file__).with_name(name) for name in ("direct.c", "winograd.c", "pool.c"))
FUNCTIONS = (
    "mcjax_convolution",
    "mcjax_weight_gradient",
    "mcjax_winograd",
    "mcjax_winograd_gradient",
    "mcjax_max_pool",
    "mcjax_max_pool_taken",
    "mcjax_max_pool_spread",
)
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-shared", "-fPIC")
NATIVE = ("-march=native", "-mcpu=native")
"""Flags for this very processor, of which compilers know one or the other."""
SECONDS = 120


class NotBuilt(Exception):
    """Why there is no library, in words for the user."""


def load() -> bool:
    """Registers the C functions with XLA; False, after one warning, where they cannot be had.

    Compiling and checking takes some 10 seconds, once for a machine.
    """
    return _library() is not None


def sums_pairs() -> bool:
    """Whether this processor adds two products of bfloat16 at once, and the C functions use it."""
    library = _library()
    return library is not None and bool(library.mcjax_sums_pairs())


def lanes() -> int:
    """The floats of a vector of this processor, by which the fastest way differs; 0 without a library."""
    library = _library()
    return 0 if library is None else int(library.mcjax_lanes())


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(library_file(cache_folder())))
    except (NotBuilt, OSError) as reason:
        warnings.warn(
            f"convolutions on CPU run up to three times slower than they could: {reason}",
            stacklevel=5,
        )
        return None
    register(library)
    return library


def register(library: ctypes.CDLL) -> None:
    """Makes the library's functions known to XLA."""
    for name in FUNCTIONS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")


def cache_folder() -> Path:
    """The user's, or MCJAX_CACHE_DIR."""
    if folder := os.environ.get("MCJAX_CACHE_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcjax"


def library_file(folder: Path) -> Path:
    """The compiled library, made if it is not there.

    Raises:
        NotBuilt: No compiler, or it failed, or the check of its result did.
        OSError: The folder cannot be written.
    """
    compiler = find_compiler()
    kept, failed = (folder / f"direct-{key()}.{end}" for end in ("so", "txt"))
    if kept.exists():
        return kept
    if failed.exists():
        raise NotBuilt(f"{failed.read_text()} (said in {failed}; delete it to try again)")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        new = Path(name) / "direct.so"
        try:
            compile_to(new, compiler)
            check(new)
        except NotBuilt as reason:
            failed.write_text(str(reason))
            raise
        new.replace(kept)
    return kept


def key() -> str:
    """Of the library of this machine.

    Raises:
        NotBuilt: There is no compiler.
    """
    return hashlib.sha256(description(find_compiler()).encode()).hexdigest()[:16]


def find_compiler() -> list[str]:
    """The command of the C compiler: the environment's CC, or cc, gcc or clang.

    Raises:
        NotBuilt: None of them was found.
    """
    words = shlex.split(os.environ.get("CC", "")) or ["cc"]
    for command in (words, ["gcc"], ["clang"]):
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    raise NotBuilt("there is no C compiler (cc, gcc or clang) to compile faster ones with")


def description(compiler: Sequence[str]) -> str:
    """Everything that the library depends on."""
    version = _run([*compiler, "--version"])
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    texts = [
        *(file.read_text() for file in sorted(SOURCES[0].parent.glob("*.[ch]"))),
        jaxlib.__version__,
        version.stdout,
        *compiler,
        *FLAGS,
        platform.platform(),
        platform.processor(),
        *sorted(processor),
    ]
    return "\0".join(texts)


def compile_to(library: Path, compiler: Sequence[str]) -> None:
    """Compiles the sources for this processor, with the headers of the installed jaxlib.

    Raises:
        NotBuilt: With the compiler's first line of complaint.
    """
    place = ["-I", jax.ffi.include_dir(), "-o", str(library), *map(str, SOURCES)]
    for native in NATIVE:
        done = _run([*compiler, *FLAGS, native, *place])
        if done.returncode == 0:
            return
    lines = done.stderr.strip().splitlines() or ["no message"]
    complaint = next((line for line in lines if "error" in line), lines[0])
    raise NotBuilt(f"{compiler[0]} cannot compile them: {complaint}")


def check(library: Path) -> None:
    """Lets a new process compute a few convolutions with the library.

    Raises:
        NotBuilt: It crashed, or a number is wrong.
    """
    command = [sys.executable, "-m", "mcjax.cpu_convolution.self_test", str(library)]
    # Alone on the CPU, wherever the user's process runs, and not as one of several.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = _run(command, env={**environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path})
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise NotBuilt(
            f"their check ended with {done.returncode}: {lines[-1] if lines else 'no message'}"
        )


def _run(command: list[str], **options) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{command[0]} cannot be run: {error}") from error
