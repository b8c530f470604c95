"""The command `mcjax`: every other command by a word.

    mcjax train --config digits
    mcjax repair --model suspect.pt --arch resnet18_torchvision --data clean.npz --out repaired
    mcjax report runs/one runs/other

Each word is a module, and `mcjax WORD ...` the same as `python -m MODULE ...`.
"""

import runpy
import sys

COMMANDS = {
    "train": ("mcjax.train", "run a config's whole experiment"),
    "evaluate": ("mcjax.evaluate", "look again along a path that is trained"),
    "repair": ("mcjax.repair", "repair a suspect network of your own"),
    "report": ("mcjax.report", "gather many runs in one table, with figures and a page"),
    "sweep": ("launch.sweep", "run many configs"),
    "torch": ("mcjax.interop.torch", "check and convert PyTorch files"),
}


def main() -> None:
    """Runs the command that the first word names."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word in ("-h", "--help", ""):
        print(usage())
        sys.exit(0 if word else 2)
    if word not in COMMANDS:
        print(f"mcjax: error: no command {word!r}; use {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    module, _ = COMMANDS[word]
    del sys.argv[1]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  mcjax {word:9} {what}" for word, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: mcjax COMMAND ...", "", *lines, "", "mcjax COMMAND --help says more."]
    )


if __name__ == "__main__":
    main()
