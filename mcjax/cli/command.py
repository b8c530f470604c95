"""Shared code of the `python -m mcjax...` commands: flags, help, errors, caches."""

import contextlib
import difflib
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags
from ml_collections import ConfigDict

from mcjax import cpu_convolution
from mcjax.cli.quiet import hide_storage_threads
from mcjax.core import interrupt, processes
from mcjax.core.errors import UserError
from mcjax.core.progress import say
from mcjax.runs import recipes
from mcjax.runs.config import flat
from mcjax.runs.schema import SETTINGS, Setting

RECIPES = {"--config": "", "--sweep": "sweeps"}
HELP = ("-h", "--h", "-help", "--help", "--helpfull", "--helpshort")


class Failed(UserError):
    """Ends a command whose work partly failed: one line, exit code 1."""

    exit_code = 1


class NoAnswer(UserError):
    """Ends a command that did its work but has no acceptable answer: one line, exit code 3."""

    exit_code = 3


def run(
    main: Callable[..., None],
    define_flags: Callable[[], None],
    doc: str,
    *,
    takes_words: bool = False,
) -> NoReturn:
    """Parses the flags, calls main and ends the process; see `session`."""
    with session(define_flags, doc, takes_words=takes_words) as words:
        main(*words)
    sys.exit(0)


@contextlib.contextmanager
def session(
    define_flags: Callable[[], None],
    doc: str,
    *,
    takes_words: bool = False,
    resumes: bool = True,
) -> Iterator[list[str]]:
    """The frame of a command: flags, --help, and errors as exit codes.

    Exit codes: 0 done; 1 a part failed; 2 a user's mistake, reported in one line; 3 no acceptable
    result; 130 interrupted; 141 the output pipe was closed.

    Args:
        define_flags: Defines the command's flags.
        doc: The module's docstring, shown by --help.
        takes_words: Whether positional arguments, such as folders, are allowed.
        resumes: Whether an interrupted command goes on where it stopped when it is run again.

    Yields:
        The positional arguments.
    """
    name = f"python -m {_module_name()}"
    hide_storage_threads()
    warnings.formatwarning = lambda message, *_, **__: f"{name}: warning: {message}\n"
    others = set(flags.FLAGS)
    define_flags()
    own = [name for name in flags.FLAGS if name not in others]
    try:
        interrupt.ready()
        interrupt.repeat_where_swallowed()
        wants_help = any(word in HELP for word in sys.argv[1:])
        argv = [word for word in sys.argv if word not in HELP]
        words = _parse(argv, optional=wants_help, takes_words=takes_words)
        if wants_help:
            print(_help(doc, own), flush=True)
            sys.exit(0)
        _keep_compiled_programs()
        _join_processes()
        yield words
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has exited
        processes.end(128 + signal.SIGPIPE)
    except UserError as error:
        print(f"{name}: error: {error}", file=sys.stderr, flush=True)
        # Exit immediately: after a failed restore Orbax's threads would print tracebacks.
        processes.end(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        again = "run the same command to resume" if resumes else "the same command starts over"
        print(f"{name}: interrupted; {again}", file=sys.stderr)
        if processes.several():
            processes.end(130)
        sys.exit(130)
    except Exception:
        if not processes.several():
            raise
        # A normal exit waits for the other processes, which wait for this one.
        traceback.print_exc()
        processes.end(1)


def arguments(*modules: str) -> dict[str, Any]:
    """The values of all flags that some modules have defined, also of those not given.

    Args:
        modules: Their names.
    """
    defined = flags.FLAGS.flags_by_module_dict()
    return {flag.name: flag.value for name in modules for flag in defined.get(name, [])}


def say_already(result: Mapping[str, Any], page: Path) -> None:
    """Says that a command's output is complete already.

    Args:
        result: The contents of result.json.
        page: The report.
    """
    seconds = result.get("seconds") or result["metrics"].get("seconds")
    took = "" if seconds is None else f" (computed in {seconds:.0f} s)"
    say(f"already complete: {page}{took}")


def define_process_flags() -> None:
    """Defines the flags of a multi-process command (one process per host)."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "With several processes: HOST:PORT of process 0, or auto on TPU pods and Slurm.",
    )
    flags.DEFINE_integer("num_processes", None, "Number of processes.")
    flags.DEFINE_integer("process_id", None, "Index of this process, from 0.")
    flags.DEFINE_integer("connect_seconds", 300, "Timeout for connecting the processes.")
    flags.DEFINE_integer("heartbeat_seconds", 100, "Silence after which a process counts as dead.")


def _join_processes() -> None:
    if "coordinator" in flags.FLAGS:
        f = flags.FLAGS
        processes.initialize(
            f.coordinator,
            f.num_processes,
            f.process_id,
            connect_seconds=f.connect_seconds,
            heartbeat_seconds=f.heartbeat_seconds,
        )


def _module_name() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name


def _parse(argv: list[str], *, optional: bool, takes_words: bool) -> list[str]:
    words: list[str] = []
    try:
        flags.FLAGS.set_gnu_getopt(takes_words)  # options may follow positional arguments
        words = flags.FLAGS(with_recipes(argv))[1:]
        if words and not takes_words:
            raise UserError(f"unexpected argument {words[0]!r}; options start with --")
        if "config" in flags.FLAGS and flags.FLAGS["config"].present:
            _ = flags.FLAGS.config.experiment  # loads the file, so errors are raised here
    except Exception as error:  # a config file is a program and can raise anything
        if not optional:
            raise _explained(error) from None
    return words


def with_recipes(argv: list[str]) -> list[str]:
    """Replaces names of recipes (`--config digits`) by their files."""
    words = list(argv)
    for i, word in enumerate(words):
        for flag, kind in RECIPES.items():
            if word.startswith(f"{flag}="):
                words[i] = f"{flag}={recipes.find(word.removeprefix(f'{flag}='), kind)}"
            elif word == flag and i + 1 < len(words):
                words[i + 1] = recipes.find(words[i + 1], kind)
    return words


def _explained(error: Exception) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # An error in a config file contains the whole traceback; the last line is the message.
    text = (
        lines[-1].removeprefix("mcjax.core.errors.UserError: ") if lines else type(error).__name__
    )
    if isinstance(error, UserError):
        return UserError(text)
    if isinstance(error, flags.Error):
        for kind, words in (("int", "an integer"), ("float", "a number")):
            if f"invalid literal for {kind}()" in text or f"convert string to {kind}" in text:
                text = f"{text.partition(':')[0]}: the value must be {words}"
        return UserError(f"{text}; see --help")
    if isinstance(error, AttributeError | KeyError) and "module" not in text:
        # ml_collections quotes its message; the second line may be a suggestion.
        text = ". ".join(text.strip("'\"").replace("\\n", "\n").replace("\\'", "").split("\n"))
        return UserError(f"the config has no field {_in_full(text)}; add --help to list the fields")
    known = recipes.names()
    if missing := re.search(r"No such file or directory: '(.*)'", text):
        near = difflib.get_close_matches(Path(missing[1]).stem, known, 1)
        text = f"there is no file {missing[1]}" + (f" (did you mean {near[0]}?)" if near else "")
    return UserError(f"the config can't be used: {text}; give a file, or one of {', '.join(known)}")


def _in_full(text: str) -> str:
    """A message that begins with the last part of a field's name, with the name as it was given."""
    last, _, rest = text.partition(".")
    given = [word.partition("=")[0].removeprefix("--config.") for word in sys.argv]
    full = next((name for name in given if name.endswith(f".{last}")), last)
    return f"{full}.{rest}" if rest else full


def _help(doc: str, own: list[str]) -> str:
    lines = [doc.strip(), "", "Flags:"]
    for name in own:
        flag = flags.FLAGS[name]
        default = f" (default {flag.default})" if flag.default not in (None, "") else ""
        lines.append(f"  --{name}: {flag.help}{default}")
    config = getattr(flags.FLAGS, "config", None) if flags.FLAGS.is_parsed() else None
    if isinstance(config, ConfigDict):
        lines += ["", "Fields of this config, with values and meaning:"]
        settings = SETTINGS.get(config.experiment, {})
        for name, value in flat(config).items():
            lines.append(f"  --config.{name}={value}{_meaning(settings.get(name))}")
    elif "config" in flags.FLAGS:
        lines += ["", "Add --config FILE to list its fields."]
    return "\n".join(lines)


def _meaning(setting: Setting | None) -> str:
    """A field's meaning and, of a choice, the allowed values, as a comment."""
    if setting is None:
        return ""
    allowed = f"; {setting.field.wanted}" if "one of" in setting.field.wanted else ""
    return f"   # {setting.help}{allowed}"


def _keep_compiled_programs() -> None:
    """Caches compiled programs on disk."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "mcjax" / "xla"))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def config_or_error(config: Any) -> ConfigDict:
    """The parsed config.

    Raises:
        UserError: No config was given.
    """
    if config is None:
        raise UserError("no config was given; add --config digits, or --config FILE")
    return config


def use_cpu_convolution(config: ConfigDict) -> None:
    """Switches mcjax's convolutions on CPU on or off, as `config.run.cpu_convolution` says."""
    (cpu_convolution.enable if config.run.cpu_convolution else cpu_convolution.disable)()
