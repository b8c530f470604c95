"""The command `mcjax`, which runs the other commands.

    mcjax train --config digits
    mcjax repair --model suspect.pt --arch resnet18_torchvision --data clean.npz --out repaired
    mcjax report runs/one runs/other

`mcjax WORD ...` is the same as `python -m MODULE ...`, and as `python -m mcjax WORD ...`.
"""

import runpy
import sys

COMMANDS = {
    "train": ("mcjax.train", "run an experiment"),
    "evaluate": ("mcjax.evaluate", "evaluate a trained path at other points"),
    "path": ("mcjax.path", "look along the line and a curve between two networks"),
    "repair": ("mcjax.repair", "repair a suspect network"),
    "report": ("mcjax.report", "collect runs in a table, with figures and a page"),
    "markdown": ("mcjax.report.markdown", "print a summary.csv as Markdown tables"),
    "ranking": (
        "mcjax.report.ranking",
        "rank the methods of several backdoor runs, as Markdown tables",
    ),
    "sweep": ("launch.sweep", "run many configs"),
    "torch": ("mcjax.interop.torch", "check and convert PyTorch files"),
}


def main() -> None:
    """Runs the command named by the first argument."""
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
    """The usage message, with one line per command."""
    lines = [f"  mcjax {word:9} {what}" for word, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: mcjax COMMAND ...", "", *lines, "", "mcjax COMMAND --help shows more."]
    )


if __name__ == "__main__":
    main()
