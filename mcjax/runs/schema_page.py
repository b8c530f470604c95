"""docs/config.md: every field of every config, from the tables of `mcjax.runs.schema`.

python -m mcjax.runs.schema_page > docs/config.md
"""

from mcjax.runs.schema import CONNECT, SETTINGS, Settings


def page() -> str:
    """docs/config.md: every field of every experiment, in tables."""
    lines = [
        "# Fields of a config",
        "",
        "Written by `python -m mcjax.runs.schema_page > docs/config.md` from the tables that the configs and their checks are",
        "made of. `--config.NAME=VALUE` changes a field; `python -m mcjax.train --config digits --help` shows them",
        "with a config's own values. *quick* is the value under `--config NAME:quick`.",
        "",
        "`model.options` are the network's own (`width`, `depth`, ...): see [the networks](api/training.md).",
    ]
    shared = {
        n: s for n, s in CONNECT.items() if all(s == other.get(n) for other in SETTINGS.values())
    }
    lines += ["", "## In every experiment", "", *_table(shared)]
    for experiment, settings in SETTINGS.items():
        own = {
            name: s for name, s in settings.items() if name not in shared and name != "experiment"
        }
        lines += ["", f"## {experiment}", "", *_table(own)]
    return "\n".join(lines) + "\n"


def _table(settings: Settings) -> list[str]:
    lines = ["| field | default | must be | quick | meaning |", "|---|---|---|---|---|"]
    for name, s in settings.items():
        quick = "" if s.quick is None else f"`{s.shrunk(s.default)!r}`"
        lines.append(f"| `{name}` | `{s.default!r}` | {s.field.wanted} | {quick} | {s.help} |")
    return lines


if __name__ == "__main__":
    print(page(), end="")
