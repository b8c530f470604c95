"""report.html: one self-contained page of a run."""

import base64
import csv
import html
from collections.abc import Mapping
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

DEFINITIONS = {
    "accuracy": "fraction of all images of the set that get their own label",
    "loss": "mean cross-entropy an image, in nats, without the weight-decay term",
    "barrier": "highest loss on the path minus the loss of its higher end, in nats",
    "t": "place on the path, 0 at the first network and 1 at the second",
    "arc length, distance": "Euclidean, over all parameters",
}


def write_page(workdir: Path, result: Mapping[str, Any]) -> None:
    """Writes report.html from what the run has left.

    Args:
        workdir: The run's directory, with config.json, table.csv and figures/.
        result: The contents of result.json.
    """
    config = read_config(workdir)
    title = f"{result['experiment']}: {result['data']['name']}"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        "<p>Are the two networks joined by a path of low loss? The worst point of the curve has "
        f"test accuracy {result['metrics']['curve_worst_test_accuracy']:.4f}, the worst of the "
        f"straight line {result['metrics']['line_worst_test_accuracy']:.4f}; the networks "
        f"themselves have {result['metrics']['start_test_accuracy']:.4f} and "
        f"{result['metrics']['end_test_accuracy']:.4f}.</p>",
        *(_figure(path) for path in sorted((workdir / "figures").glob("*.png"))),
        "<h2>Points</h2>",
        _table_of_csv(workdir / "table.csv"),
        "<h2>Numbers</h2>",
        _table(("quantity", "value"), result["metrics"].items()),
        "<h2>What the words mean</h2>",
        _table(("word", "meaning"), DEFINITIONS.items()),
        "<h2>Data</h2>",
        _table(("set", "images"), result["data"]["num_images"].items()),
        f"<p>{html.escape(result['data']['source'])}. Protocol: {result['data']['protocol']}. "
        f"BatchNorm recomputed from: {result['batch_stats'] or 'no BatchNorm'}.</p>",
        "<h2>Settings</h2>",
        _table(("field", "value"), config["hashed"].items()),
        f"<p>Config {result['config_hash']}, revision {config['git_revision']}, "
        f"{config['num_devices']} x {html.escape(config['device_kind'])}, "
        f"{result['seconds']:.0f} s.</p>",
    ]
    text = "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
            *sections,
            "</body></html>\n",
        ]
    )
    write(workdir / "report.html", text)


def _figure(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = html.escape(CAPTIONS.get(path.stem, path.stem))
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table_of_csv(path: Path) -> str:
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file))
    return _table(head, rows)


def _table(head: Any, rows: Any) -> str:
    cells = "".join(f"<th>{html.escape(str(name))}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _cell(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return f"<td>{html.escape(str(value))}</td>"
    return f'<td class="number">{number:.6g}</td>'
