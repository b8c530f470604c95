"""Every command line in the pages parses: its module, flags, config file and fields exist, its values are possible.

Nothing is run. Placeholders, by these rules:

    ...                 more options: left out, and none is missed
    [WORD]              options that the text names: left out; [--option=value] is taken
    a|b|c               each in turn
    WORD or $word       as a field's value: the field has to exist; $word elsewhere is 0
    files and folders   need not be there, but for config files and sweeps
"""

import argparse
import contextlib
import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags

from mcjax import experiments
from mcjax.cli import command
from mcjax.core.errors import UserError
from mcjax.runs.config import flat, validate
from mcjax.sweeps import declare, engines

# ml_collections loads config files in a way that Python will give up.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("configs/**/*.py")),
]
COMMAND = re.compile(r"python -m ((?:mcjax|launch|benchmarks)\.[a-z_.]*[a-z_])([^`\n]*)")
PLACEHOLDER = re.compile(r"[A-Z]+|\$\w+")
SHELL_VARIABLE = re.compile(r"^\$\w+$")

# What has to be given where anything is, and words that are no options.
REQUIRED = {
    "mcjax.train": ("config",),
    "mcjax.evaluate": ("workdir",),
    "mcjax.path": ("start", "end", "data", "out"),
    "mcjax.repair": ("model", "data", "out"),
    "launch.sweep": ("sweep",),
    "launch.cost": ("sweep",),
}
WORDS = {
    "mcjax.report": r"\S+( \S+)*",
    "mcjax.report.markdown": r"\S+( \S+)*",
    "mcjax.report.ranking": r"\S+( \S+)*",
    "mcjax.interop.torch": r"check \S+|convert \S+ \S+",
}


def commands(text: str) -> list[tuple[str, ...]]:
    """The command lines of a page, each as its module and its words."""
    found = []
    for match in COMMAND.finditer(re.sub(r"\\\n\s*", "", text)):
        rest = re.split(r"\s#|\s&|;|\s[12]?>|\s\|\s", match[2])[0]
        if rest.count("'") % 2:  # bash -c '... python -m ...'
            rest = rest.rpartition("'")[0]
        rest = re.sub(r"\[([A-Z]+|--[^\]]*)\]", lambda m: m[1] if m[1][0] == "-" else "", rest)
        words = shlex.split(rest)
        choices = max(len(word.split("|")) for word in ["", *words])
        for i in range(choices):
            found.append((match[1], *(_choice(word, i) for word in words)))
    return found


def _choice(word: str, i: int) -> str:
    name, equals, value = word.partition("=")
    options = (value if equals else name).split("|")
    return name + equals + options[i % len(options)] if equals else options[i % len(options)]


def check(module: str, *words: str) -> None:
    """Parses a command as it would itself, and goes no further.

    Raises:
        UserError: What is wrong with it.
    """
    try:
        found = importlib.util.find_spec(module)
        if found and found.submodule_search_locations:
            module_file = importlib.import_module(f"{module}.__main__")
        else:
            module_file = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not module.startswith(str(error.name).partition(".")[0]):
            pytest.skip(f"{module} needs {error.name}")
        raise UserError(f"there is no command {module}") from None
    if module in REQUIRED or module in WORDS:  # they only call the command in mcjax.cli
        module_file = importlib.import_module(f"mcjax.cli.{module.rpartition('.')[2]}")
    given = [word for word in words if word not in ("...", "--help")]
    complete = not given or len(given) < len(words)
    if hasattr(module_file, "define_flags"):
        _check_flags(module, module_file.define_flags, given, complete)
    elif hasattr(module_file, "argparse"):
        _check_argparse(module_file.main, given)
    elif given:
        raise UserError(f"{module} takes no options")


def _check_flags(module, define_flags, words, complete):
    named = [word for word in words if _placeholder(word)]
    words = [SHELL_VARIABLE.sub("0", word) for word in words if not _placeholder(word)]
    with _argv([module, *words]) as argv, _own_flags(define_flags) as values:
        rest = command._parse(argv, optional=False, takes_words=module in WORDS)
        if words and not re.fullmatch(WORDS.get(module, ""), " ".join(rest)):
            raise UserError(f"{module} does not take the words {' '.join(rest)!r}")
        for name in REQUIRED.get(module, ()):
            if not complete and not values[name].present:
                raise UserError(f"{module} needs --{name}")
        if "config" in values and values["config"].present:
            experiments.get(values.config.experiment)
            validate(values.config)
            for word in named:
                field = word.partition("=")[0].removeprefix("--config.")
                if field not in flat(values.config):
                    raise UserError(f"the config has no field {field!r}")
        if "sweep" in values and values.sweep:
            declare.load(values.sweep)
            if "engine" in values and values.engine not in engines.ENGINES:
                raise UserError(f"there is no engine {values.engine}")


@contextlib.contextmanager
def _argv(argv):
    """ml_collections reads the fields' values from sys.argv."""
    before, sys.argv = sys.argv, list(argv)
    try:
        yield sys.argv
    finally:
        sys.argv = before


@contextlib.contextmanager
def _own_flags(define_flags):
    values, before = flags.FLAGS, set(flags.FLAGS)
    define_flags()
    try:
        yield values
    finally:
        for name in set(values) - before:
            delattr(values, name)
        values.unparse_flags()


def _placeholder(word):
    return word.startswith("--config.") and PLACEHOLDER.fullmatch(word.partition("=")[2])


class _Parsed(Exception):
    pass


def _check_argparse(main, words):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, *args, **kwargs):
        parse(parser, *args, **kwargs)
        raise _Parsed

    def error(parser, message):
        raise UserError(message)

    with _argv(["command", *words]), pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(argparse.ArgumentParser, "error", error)
        with contextlib.suppress(_Parsed):
            main()
            raise AssertionError("the command read no options and went to work")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_parse(page):
    wrong = []
    for module, *words in commands(page.read_text()):
        try:
            check(module, *words)
        except UserError as error:
            wrong.append(f"python -m {shlex.join([module, *words])}: {error}")
    assert not wrong, "\n".join(wrong)


def test_no_field_is_named_in_a_page_that_no_experiment_has():
    configs = [runpy.run_path(str(file))["get_config"]() for file in ROOT.glob("configs/*.py")]
    fields = {field for config in configs for field in flat(config)}
    parts = {"", *fields, *(f.rsplit(".", n)[0] for f in fields for n in range(1, 4))}
    unknown = [
        f"{page.name}: {name}"
        for page in PAGES
        if page.suffix == ".md"
        for name in re.findall(r"`(?:--)?config\.([a-z_0-9.]+)", page.read_text())
        if name not in parts
    ]
    assert not unknown


def test_commands_are_found_however_they_stand():
    text = """
    tpu.sh run -- python -m mcjax.train --config configs/digits.py \\
        --config.seed=SEED   # a remark
    bash -c 'cd x && .venv/bin/python -m mcjax.evaluate --workdir DIR'
    python -m mcjax.train --config.curve.align=none|weights --config.seeds='(0, 1)' [NETWORK] [--config.seed=1] > log &
| `python -m benchmarks.chunk` | with `--batch 1000`, as in `python -m mcjax...` |
"""
    last = ("--config.seeds=(0, 1)", "--config.seed=1")
    assert commands(text) == [
        ("mcjax.train", "--config", "configs/digits.py", "--config.seed=SEED"),
        ("mcjax.evaluate", "--workdir", "DIR"),
        ("mcjax.train", "--config.curve.align=none", *last),
        ("mcjax.train", "--config.curve.align=weights", *last),
        ("benchmarks.chunk",),
    ]
    assert sum(len(commands(page.read_text())) for page in PAGES) > 70


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mcjax.train --config configs/digits.py --config.sed=1", "no field"),
        ("mcjax.train --config configs/digits.py --config.data.dri=FOLDER", "no field"),
        ("mcjax.train --config configs/digits.py --config.curve.align=weigths", "must be one of"),
        ("mcjax.train --config configs/digits.py --config.seed=one", "seed"),
        ("mcjax.train --config configs/digit.py", "can't be used"),
        ("mcjax.train --config configs/digits.py:quik", "unknown config argument"),
        ("mcjax.train --config configs/digits.py --wordkir x", "wordkir"),
        ("mcjax.train --config configs/digits.py runs/x", "unexpected argument"),
        ("mcjax.train --workdir x", "needs --config"),
        ("mcjax.repair --model m --data d.npz --out o --secnod s", "secnod"),
        ("mcjax.repair --model m --data d.npz", "needs --out"),
        ("mcjax.interop.torch chek m.pt", "does not take the words"),
        ("launch.sweep --sweep configs/sweeps/none.py", "there is no file"),
        ("launch.sweep --sweep configs/sweeps/backdoor_digits.py --engine sge", "no engine"),
        ("benchmarks.chunk --btach 1000", "btach"),
        ("benchmarks.ways --batches many", "invalid int value"),
        ("benchmarks.growth --points 3", "takes no options"),
        ("mcjax.trian --config configs/digits.py", "there is no command"),
    ],
)
def test_a_wrong_command_is_found_out(line, message):
    ((module, *words),) = commands(f"    python -m {line}\n")
    with pytest.raises(UserError, match=message):
        check(module, *words)


def test_flags_are_left_as_they_were():
    before = set(flags.FLAGS)
    check("mcjax.train", "--config", "configs/digits.py", "--config.seed=SEED", "--workdir", "DIR")
    check("benchmarks.growth")
    assert set(flags.FLAGS) == before
