"""Gathers the wheels that a host without internet lacks, so that they travel with the code.

    python -m benchmarks.accelerator.wheels --host host.txt --out .wheels [--python 3.12]

host.txt is what `python3 -m pip list --format=freeze` prints there; a name without a version stands for any.
pip downloads all that mcjax needs for the host's Python, in the host's versions where they will do, and what the host
has is thrown away again; benchmarks/accelerator/start.sh installs the rest there.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[2]
# pip takes a wheel only for a platform that is named exactly.
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
LIMIT = 64 * 2**20
SOURCE_ONLY = (
    "promise",
)  # published without a wheel; pure Python, so one that is built here will do


def main() -> None:
    """Resolves, downloads, and says what travels."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator.wheels",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", default="3.12", help="the host's Python; 3.12")
    options = parser.parse_args()
    try:
        present = packages(options.host.read_text())
    except (OSError, ValueError) as error:
        parser.error(f"--host {options.host}: {error}; give what pip list --format=freeze prints")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out can't be used: {error}")
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        try:
            download(requirements(), present, options.python, Path(folder))
        except RuntimeError as error:
            parser.error(str(error))
        needed = {
            wheel: parse_wheel_filename(wheel.name)[:2] for wheel in Path(folder).glob("*.whl")
        }
        missing = {w: nv for w, nv in needed.items() if lacks(present, nv[0], str(nv[1]))}
        for old in options.out.glob("*.whl"):  # two versions of one package stop the installation
            old.unlink()
        for wheel in missing:
            wheel.rename(options.out / wheel.name)
    total = sum(wheel.stat().st_size for wheel in options.out.glob("*.whl"))
    code = sum(file.stat().st_size for file in tracked())
    print(
        f"{len(missing)} wheels, {total / 2**20:.1f} MiB, with the code {(total + code) / 2**20:.1f} MiB:"
    )
    print("  " + ", ".join(sorted(f"{name} {version}" for name, version in missing.values())))
    if total + code > LIMIT:
        parser.error(f"more than {LIMIT / 2**20:.0f} MiB; install the largest wheels on the host")


def requirements() -> list[Requirement]:
    """What mcjax and its tests need, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["test"]
    return [Requirement(text) for text in (*project["dependencies"], *extra)]


def packages(text: str) -> dict[str, str]:
    r"""{canonical name: version} of lines NAME==VERSION; "" where a line is a name alone.

    Example:
        >>> packages("jax==0.11.2\nPyYAML\n# a comment\n")
        {'jax': '0.11.2', 'pyyaml': ''}
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if not line or " @ " in line or line.startswith("-"):
            continue
        name, _, version = line.partition("==")
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"{line[:80]!r} is no NAME==VERSION")
        found[canonicalize_name(name)] = version.strip()
    return found


def download(wanted: list[Requirement], present: dict[str, str], python: str, folder: Path) -> None:
    """Downloads the requirements and theirs, in the host's versions where mcjax admits them.

    Args:
        wanted: The requirements.
        present: What the host has.
        python: The host's Python.
        folder: Where to.

    Raises:
        RuntimeError: pip failed, with its reason.
    """
    bounds = {str(canonicalize_name(r.name)): r.specifier for r in wanted}
    pins = [
        f"{name}=={version}"
        for name, version in present.items()
        if version and "+" not in version and (name not in bounds or version in bounds[name])
    ]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins))
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), *SOURCE_ONLY)
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    given = ["--constraint", str(constraints), "--find-links", str(folder)]
    _pip("download", "--dest", str(folder), *given, *target, *platforms, *map(str, wanted))


def _pip(*args: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", *args]
    answer = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError("pip: " + (" ".join(lines) or answer.stderr.strip()[-300:]))


def lacks(present: dict[str, str], name: str, version: str) -> bool:
    """Whether a host lacks a package, or has it in another version.

    Example:
        >>> lacks({"jax": "0.11.2", "rich": ""}, "jax", "0.11.3"), lacks({"rich": ""}, "rich", "15.0")
        (True, False)
    """
    return name not in present or present[name] not in ("", version)


def tracked() -> list[Path]:
    """The files of the project that travel."""
    answer = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    files = [ROOT / name for name in answer.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


if __name__ == "__main__":
    main()
