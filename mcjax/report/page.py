"""report.html: one self-contained page of a run."""

import base64
import csv
import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mcjax.workdir import read_config, write

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
code { background: #f4f4f4; }
"""

CAPTIONS = {
    "path": "Loss and error along the path. Solid: the trained curve. Dotted: the straight line "
    "between the same two networks. Dots: the two networks.",
    "plane": "Test loss on the plane through the two networks and the bend of the curve. "
    "Losses beyond the colour bar are drawn in its last colour.",
}

CAPTIONS |= {
    "trigger": "Clean test images, and the same with the trigger.",
    "table": "Every trained repair against the number of bonafide images: means over seeds, bars "
    "their 95 % interval (none for one seed). Dotted: the suspect.",
    "gradients": "Mean cosine between the loss's gradients with respect to clean and to stamped "
    "images, along the path of the largest bonafide size.",
    "noise": "Around the suspect: Gaussian noise on all weights, in units of each tensor's root mean "
    "square; means over the draws.",
}
REPAIRED_PATH = (
    "The path trained on bonafide images, a panel a number of them (first seed). Dashed: the t "
    "that was chosen without knowing what was tampered with."
)

DEFINITIONS = {
    "accuracy": "fraction of all images of the set that get their own label",
    "loss": "mean cross-entropy an image, in nats, without the weight-decay term",
    "barrier": "highest loss on the path minus the loss of its higher end, in nats",
    "t": "place on the path, 0 at the first network and 1 at the second",
    "attack success rate": "fraction of stamped test images that get the class that the attacker "
    "wants; images whose true class is that class are left out",
    "official denominator": "the same over all test images, those of the target class unstamped and "
    "counted where they are right, as the paper's official code counts",
    "bonafide": "number of clean labelled images that a repair was given; 0: it uses none",
    "interval": "half-width of the 95 % Student interval of the mean over seeds (and folds)",
    "acceptable": "1 where a point of the path was accurate enough on the selection images; 0 where "
    "none was and the suspect stands unchanged",
    "arc length, distance": "Euclidean, over all parameters",
}


def write_page(
    workdir: Path,
    result: Mapping[str, Any],
    *,
    answer: str,
    tables: Mapping[str, str] | None = None,
) -> None:
    """Writes report.html from what the run has left.

    Args:
        workdir: The run's directory, with config.json, table.csv and figures/.
        result: The contents of result.json.
        answer: The run's question and what came out, in a sentence or two.
        tables: Other tables to show before table.csv: title to file name.
    """
    config = read_config(workdir)
    captions = CAPTIONS if result["experiment"] == "connect" else CAPTIONS | {"path": REPAIRED_PATH}
    title = f"{result['experiment']}: {result['data']['name']}"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(answer)}</p>",
        *(
            picture(path, captions.get(path.stem, path.stem))
            for path in sorted((workdir / "figures").glob("*.png"))
        ),
        *(
            f"<h2>{html.escape(name)}</h2>{_table_of_csv(workdir / file)}"
            for name, file in (tables or {}).items()
        ),
        "<h2>Points</h2>",
        _table_of_csv(workdir / "table.csv"),
        "<h2>Numbers</h2>",
        table(("quantity", "value"), result["metrics"].items()),
        "<h2>What the words mean</h2>",
        table(("word", "meaning"), DEFINITIONS.items()),
        "<h2>Data</h2>",
        table(("set", "images"), result["data"]["num_images"].items()),
        f"<p>{html.escape(result['data']['source'])}. Protocol: {result['data']['protocol']}. "
        f"BatchNorm recomputed from: {result['batch_stats'] or 'no BatchNorm'}.</p>",
        "<h2>Settings</h2>",
        table(("field", "value"), config["hashed"].items()),
        f"<p>Config {result['config_hash']}, revision {config['git_revision']}, "
        f"{config['num_devices']} x {html.escape(config['device_kind'])}, "
        f"{result['seconds']:.0f} s.</p>",
    ]
    write(workdir / "report.html", document(title, sections))


def document(title: str, sections: Iterable[str]) -> str:
    """A self-contained page of the sections, in the common style."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            *sections,
            "</body></html>\n",
        ]
    )


def picture(path: Path, caption: str) -> str:
    """A PNG inside the page, with its caption."""
    data, caption = base64.b64encode(path.read_bytes()).decode(), html.escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table_of_csv(path: Path) -> str:
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file))
    return table(head, rows)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A table; numbers stand to the right."""
    cells = "".join(f"<th>{html.escape(str(name))}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _cell(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return f"<td>{html.escape(str(value))}</td>"
    return f'<td class="number">{number:.6g}</td>'
