"""What every `python -m mcjax...` command does around its work: flags, help, errors, caches."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from mcjax import interrupt, processes, recipes
from mcjax.config import flat
from mcjax.errors import UserError
from mcjax.settings import SETTINGS

RECIPES = {"--config": "", "--sweep": "sweeps"}
HELP = ("-h", "--h", "-help", "--help", "--helpfull", "--helpshort")


def run(
    main: Callable[..., None],
    define_flags: Callable[[], None],
    doc: str,
    *,
    takes_words: bool = False,
) -> NoReturn:
    """Parses the flags, calls main, and ends the process.

    Exit codes: 0 done; 2 a mistake that the user can mend, told in one line; 3 no acceptable
    answer; 130 interrupted; 141 nobody reads the output any more.

    Args:
        main: The command's work; it reads the flags.
        define_flags: Defines them.
        doc: The module's docstring, shown by --help.
        takes_words: Whether words that are no options, such as folders, are main's arguments.
    """
    name = f"python -m {_module_name()}"
    logging.set_verbosity(logging.ERROR)
    others = set(flags.FLAGS)
    define_flags()
    own = [name for name in flags.FLAGS if name not in others]
    try:
        interrupt.ready()
        wants_help = any(word in HELP for word in sys.argv[1:])
        argv = [word for word in sys.argv if word not in HELP]
        words = _parse(argv, optional=wants_help, takes_words=takes_words)
        if wants_help:
            print(_help(doc, own), flush=True)
            sys.exit(0)
        _keep_compiled_programs()
        _join_processes()
        main(*words)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        processes.end(128 + signal.SIGPIPE)
    except UserError as error:
        print(f"{name}: error: {error}", file=sys.stderr, flush=True)
        # At once: after a failed restore Orbax's threads would add tracebacks of their own.
        processes.end(error.exit_code)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
        if processes.several():
            processes.end(130)
        sys.exit(130)
    except Exception:
        if not processes.several():
            raise
        # Python's own way out waits for the other processes, which wait for this one.
        traceback.print_exc()
        processes.end(1)
    sys.exit(0)


def define_process_flags() -> None:
    """The flags of a command that several processes can run together, one on each host."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "With several processes: HOST:PORT of the first, or auto on TPU pods and Slurm.",
    )
    flags.DEFINE_integer("num_processes", None, "How many there are.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
    flags.DEFINE_integer("connect_seconds", 300, "How long they wait for each other at the start.")
    flags.DEFINE_integer("heartbeat_seconds", 100, "After how long a silent one counts as dead.")


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
        flags.FLAGS.set_gnu_getopt(takes_words)  # options may stand behind words
        words = flags.FLAGS(with_recipes(argv))[1:]
        if words and not takes_words:
            raise UserError(f"unexpected argument {words[0]!r}; options start with --")
        if "config" in flags.FLAGS and flags.FLAGS["config"].present:
            _ = flags.FLAGS.config.experiment  # a file that can't be loaded fails here, not before
    except Exception as error:  # a config file is the user's own program: it may raise anything
        if not optional:
            raise _explained(error) from None
    return words


def with_recipes(argv: list[str]) -> list[str]:
    """The words, with names of recipes (`--config digits`) as the files that they stand for."""
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
    # An error inside a config file comes as its whole traceback; the last line says what it was.
    text = lines[-1].removeprefix("mcjax.errors.UserError: ") if lines else type(error).__name__
    if isinstance(error, UserError):
        return UserError(text)
    if isinstance(error, flags.Error):
        return UserError(f"{text}; see --help")
    if isinstance(error, AttributeError | KeyError) and "module" not in text:
        # ml_collections quotes its own message, whose second line may be a suggestion.
        text = ". ".join(text.strip("'\"").replace("\\n", "\n").replace("\\'", "").split("\n"))
        return UserError(f"the config has no field {text}; the same command with --help lists them")
    known = ", ".join(recipes.names())
    return UserError(f"the config can't be used: {text}; give a file, or one of {known}")


def _help(doc: str, own: list[str]) -> str:
    lines = [doc.strip(), "", "Flags:"]
    for name in own:
        flag = flags.FLAGS[name]
        default = f" (default {flag.default})" if flag.default not in (None, "") else ""
        lines.append(f"  --{name}: {flag.help}{default}")
    config = getattr(flags.FLAGS, "config", None) if flags.FLAGS.is_parsed() else None
    if isinstance(config, ConfigDict):
        lines += ["", "Fields of this config, their values, and what they mean:"]
        settings = SETTINGS.get(config.experiment, {})
        for name, value in flat(config).items():
            meaning = f"   # {settings[name].help}" if name in settings else ""
            lines.append(f"  --config.{name}={value}{meaning}")
    elif "config" in flags.FLAGS:
        lines += ["", "Add --config FILE to see its fields and their values."]
    return "\n".join(lines)


def _keep_compiled_programs() -> None:
    """The second run of a program does not compile it again."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "mcjax" / "xla"))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def config_or_error(config: Any) -> ConfigDict:
    """The parsed --config.

    Raises:
        UserError: None was given.
    """
    if config is None:
        raise UserError("no config was given; add --config digits, or a file of your own")
    return config
