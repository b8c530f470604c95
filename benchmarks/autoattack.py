"""AutoAttack beside the published PyTorch code: robust accuracy and time of each attack and of all together.

    python -m benchmarks.autoattack [--data digits] [--num_images 200] [--networks standard batch_norm] [--norms l2]

Trains three small networks with mcjax: on clean images, on attacked images (linf), and on clean images with BatchNorm.
Then each framework attacks the same weights and images in a process of its own. The published code is the package
autoattack or pyautoattack, in this Python or in the one named by --torch_python. Times are CPU seconds of all threads,
so that other processes matter less; mcjax's leave out compilation, which is given separately. A row is one network and
norm. Finished rows are kept in --output, so a call that was stopped goes on with the row it was at; the page is written
beside the file after every row.

In the background:

    OMP_NUM_THREADS=1 nohup nice -n 19 python -m benchmarks.autoattack --data fashion_mnist > aa.log 2>&1 &
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("standard", "adversarial", "batch_norm")
EPS = {
    "digits": {
        "standard": {"linf": 0.12, "l2": 0.8, "l1": 1.0},
        "adversarial": {"linf": 0.2, "l2": 1.0, "l1": 1.0},
        "batch_norm": {"linf": 0.08, "l2": 0.5, "l1": 0.7},
    },
    "fashion_mnist": {
        "standard": {"linf": 0.02, "l2": 0.3, "l1": 4.0},
        "adversarial": {"linf": 0.08, "l2": 0.7, "l1": 6.0},
        "batch_norm": {"linf": 0.02, "l2": 0.3, "l1": 4.0},
    },
}
TRAINED_AT = {"digits": 0.15, "fashion_mnist": 0.08}  # eps of the adversarial network
ATTACKS = {  # ours: theirs
    "apgd_ce": "apgd-ce",
    "apgd_targeted": "apgd-t",
    "fab": "fab-t",
    "square": "square",
}
TOGETHER = "all together"
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def prepare(file: Path, data_name: str, network: str, num_images: int, num_steps: int) -> None:
    """Trains a network and writes it with the test images to attack.

    Args:
        file: The .npz file to write.
        data_name: The data set.
        network: One of `NETWORKS`.
        num_images: Test images.
        num_steps: Steps of training.
    """
    import jax
    import jax.numpy as jnp

    from mcjax import data
    from mcjax.core.tree import by_name
    from mcjax.training.fit import Budget, Training, fit
    from mcjax.training.objectives import endpoint_loss
    from mcjax.training.robust_objectives import madry_loss

    loaded = data.load(data_name)
    net = _network(network, loaded.image_shape)
    variables = net.init(jax.random.key(0))
    eps = TRAINED_AT[data_name]
    loss_fn = (
        madry_loss(net, eps=eps, step_size=eps / 3, num_steps=5)
        if network == "adversarial"
        else endpoint_loss(net)
    )
    training = Training(
        variables["params"],
        variables.get("batch_stats", {}),
        {k: jnp.asarray(v) for k, v in loaded.train.items()},
        loss_fn,
        0.05,
        Budget(num_steps=num_steps, batch_size=64),
    )
    trained = fit(jax.random.key(1), training)
    arrays: dict[str, Any] = {f"variables:{k}": np.asarray(v) for k, v in by_name(trained).items()}
    images = loaded.test["image"][:num_images]
    scale = 255 if images.dtype == np.uint8 else 1
    arrays["images"] = images.astype(np.float32) / scale
    arrays["labels"] = np.asarray(loaded.test["label"][:num_images], np.int32)
    np.savez(file, **arrays)


def _network(name: str, image_shape: tuple[int, int, int]) -> Any:
    from mcjax import models
    from mcjax.models.network import from_linen

    options = {"width": 16, "hidden": 64, "batch_norm": name == "batch_norm"}
    return from_linen(models.create("cnn", num_classes=10, **options), image_shape)


def timed(f: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds of a call, on the clock and of all CPUs together, and its result."""
    began, began_cpu = time.perf_counter(), time.process_time()
    result = f()
    seconds = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - began_cpu,
    }
    return seconds, result


def digits_network(network: str, num_images: int) -> tuple[Any, Any, Any]:
    """A network of digits that is trained anew, as a function of images, and the images and labels."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.npz"
        prepare(file, "digits", network, num_images, 600)
        return loaded(file, network)


def loaded(file: Path, network: str) -> tuple[Any, Any, Any]:
    """The network of a file of `prepare`, as a function of images, and the images and labels."""
    import jax
    import jax.numpy as jnp

    arrays = dict(np.load(file))
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, value in arrays.items():
        if name.startswith("variables:"):
            place = variables
            *path, last = name.removeprefix("variables:").split("/")
            for part in path:
                place = place.setdefault(part, {})
            place[last] = jnp.asarray(value)
    x, y = jnp.asarray(arrays["images"]), jnp.asarray(arrays["labels"])
    net = _network(network, (x.shape[1], x.shape[2], x.shape[3]))
    logits_fn = jax.tree_util.Partial(net.apply, {k: v for k, v in variables.items() if v})
    return logits_fn, x, y


def mcjax_work(file: Path, network: str, norm: str, eps: float, works: list[str]) -> dict[str, Any]:
    """Ours: {attack: {"robust", "seconds", "first_call"}}."""
    import jax

    from mcjax import autoattack, cpu_convolution

    cpu_convolution.enable()
    logits_fn, x, y = loaded(file, network)
    found: dict[str, Any] = {}
    for work in works:
        attacks = tuple(ATTACKS) if work == TOGETHER else (work,)

        def run(attacks: tuple[str, ...] = attacks) -> Any:
            return autoattack(
                jax.random.key(0), logits_fn, x, y, eps=eps, norm=norm, attacks=attacks
            )

        first, _ = timed(run)
        seconds, result = timed(run)
        found[work] = {
            "withstand": np.flatnonzero(result.robust).tolist(),
            "correct": round(result.accuracy * len(x)),
            **seconds,
            "first_call": first["seconds"],
        }
        tell("mcjax", network, norm, work, found[work])
    return found


def tell(side: str, network: str, norm: str, work: str, one: dict[str, Any]) -> None:
    """A line of progress."""
    clock = datetime.datetime.now().strftime("%H:%M:%S")
    print(
        f"{clock} {network} {norm}: {side}, {work}: {len(one['withstand'])} robust, {one['seconds']:.0f} s",
        file=sys.stderr,
        flush=True,
    )


def torch_work(file: Path, network: str, norm: str, eps: float, works: list[str]) -> dict[str, Any]:
    """The published code: {attack: {"robust", "seconds"}}."""
    import torch
    import torch.nn.functional as F

    published = published_code()
    arrays = dict(np.load(file))
    p = {
        k.split("/", 1)[1]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("variab")
    }
    p = {
        k: v.permute(3, 2, 0, 1).contiguous() if v.ndim == 4 else v.T.contiguous() if v.ndim == 2 else v
        for k, v in p.items()
    }  # fmt: skip
    x = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(arrays["labels"]).long()

    def logits_fn(x: Any) -> Any:
        for i in (1, 2, 3):
            x = F.conv2d(x, p[f"conv{i}/kernel"], p.get(f"conv{i}/bias"), padding=1)
            if f"bn{i}/scale" in p:
                x = F.batch_norm(
                    x, p[f"bn{i}/mean"], p[f"bn{i}/var"], p[f"bn{i}/scale"], p[f"bn{i}/bias"]
                )
            x = F.relu(x)
            if min(x.shape[2:]) >= 2:
                x = F.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return F.linear(F.relu(F.linear(x, p["fc1/kernel"], p["fc1/bias"])), p["fc2/kernel"], p["fc2/bias"])  # fmt: skip

    with torch.no_grad():
        correct = int((logits_fn(x).argmax(1) == y).sum())
    found: dict[str, Any] = {}
    for work in works:
        attack = published.AutoAttack(
            logits_fn, norm=NORMS[norm], eps=eps, seed=0, version="standard", device="cpu"
        )
        attack.verbose = False
        attack.attacks_to_run = list(ATTACKS.values()) if work == TOGETHER else [ATTACKS[work]]
        seconds, answer = timed(lambda a=attack: a.run_standard_evaluation(x, y, batch_size=512))  # type: ignore[misc]
        x_adv = answer[0] if isinstance(answer, tuple) else answer
        with torch.no_grad():
            withstand = (logits_fn(x_adv).argmax(1) == y).nonzero()[:, 0].tolist()
        found[work] = {"withstand": withstand, "correct": correct, **seconds}
        tell("published", network, norm, work, found[work])
    return found


def published_code() -> Any:
    """The module with the class AutoAttack, of either package."""
    for name in ("autoattack", "pyautoattack"):
        try:
            return importlib.import_module(f"{name}.autoattack")
        except ImportError:
            continue
    raise SystemExit("install the published code: pip install pyautoattack")


def measured(args: argparse.Namespace, file: Path, network: str, norm: str) -> dict[str, Any]:
    """One row: both sides on one network and norm."""
    eps = EPS[args.data][network][norm]
    sides = {}
    for side, python in (("mcjax", sys.executable), ("published", args.torch_python)):
        command = [
            python, "-m", "benchmarks.autoattack", "--side", side, "--file", str(file),
            "--networks", network, "--norms", norm, "--eps", str(eps), "--works", *args.works,
        ]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        sides[side] = counted(json.loads(done.stdout.splitlines()[-1]))
    return {
        "data": args.data, "network": network, "norm": norm, "eps": eps, "num_images": args.num_images,
        **sides,
    }  # fmt: skip


def counted(found: dict[str, Any]) -> dict[str, Any]:
    """Counts what withstands each attack, and what withstands every one that ran alone."""
    alone = [set(one["withstand"]) for name, one in found.items() if name != TOGETHER]
    if len(alone) == len(ATTACKS):
        found["every one alone"] = {"withstand": set.intersection(*alone)}
    for one in found.values():
        one["robust"] = len(one.pop("withstand"))
    return found


def machine() -> dict[str, str]:
    """Where and with what it was measured."""
    versions = {}
    for name in ("jax", "jaxlib", "torch", "autoattack", "pyautoattack"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpus": f"{os.cpu_count()} CPUs, {platform.machine()}",
        **versions,
    }


def page(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = record["rows"]
    pairs = [(row, name) for row in rows for name in row["mcjax"]]

    def gap(row: dict[str, Any], name: str) -> int:
        return int(row["mcjax"][name]["robust"] - row["published"][name]["robust"])

    single = [(row, name) for row, name in pairs if name in ATTACKS]
    higher = sum(gap(row, name) for row, name in single)
    num = sum(row["num_images"] for row, _ in single)
    within = sum(abs(gap(row, name)) <= 0.005 * row["num_images"] for row, name in single)
    lines = [
        "# AutoAttack compared with the published code",
        "",
        f"Robust accuracies by single attacks agree within 0.5 points in {within} of {len(single)} comparisons. Summed over "
        f"all of them, mcjax leaves {abs(higher)} {'more' if higher > 0 else 'fewer'} of {num} images robust than the "
        "published code; why: [comparison](../docs/comparison.md#why-more-are-fooled). "
        "*every one alone* counts the images that withstand each of the four attacks, every one started from the "
        "original image.",
        "",
    ]
    for work in [*ATTACKS, TOGETHER]:
        ratios = [
            row["published"][work]["cpu_seconds"] / row["mcjax"][work]["cpu_seconds"]
            for row in rows
            if work in row["mcjax"]
        ]
        if ratios:
            lines.append(
                f"- {work}: the published code takes {np.median(ratios):.1f} times the CPU time of mcjax (median; {min(ratios):.1f} to {max(ratios):.1f})"
            )
    versions = dict(record["machine"])
    date, cpus = versions.pop("date"), versions.pop("cpus")
    about = ", ".join([cpus, *(f"{k} {v}" for k, v in versions.items()), date])
    lines += [
        "",
        f"Command: `{record['command']}`. Machine: {about}. CPU seconds are those of all threads; they leave out mcjax's compilation. The last column has the seconds of its first call, on the clock.",
        "",
        "| data | network | norm | eps | images | correct | attack | robust, mcjax | robust, published | CPU s, mcjax | CPU s, published | ratio | first call, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, name in pairs:
        a, b = row["mcjax"][name], row["published"][name]
        correct = next(iter(row["mcjax"].values()))["correct"]
        times = "| | | |"
        if "cpu_seconds" in a:
            times = (
                f"{a['cpu_seconds']:.1f} | {b['cpu_seconds']:.1f} | "
                f"{b['cpu_seconds'] / a['cpu_seconds']:.1f} | {a['first_call']:.1f} |"
            )
        lines.append(
            f"| {row['data']} | {row['network']} | {row['norm']} | {row['eps']} | {row['num_images']} | {correct} | {name} | "
            f"{a['robust']} | {b['robust']} | {times}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(EPS), default="digits")
    parser.add_argument("--num_images", type=int, default=200)
    parser.add_argument("--num_steps", type=int, default=600, help="training steps")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--norms", nargs="+", default=list(NORMS), choices=list(NORMS))
    parser.add_argument("--works", nargs="+", default=[*ATTACKS, TOGETHER])
    parser.add_argument(
        "--inputs", type=Path, help="folder of trained networks, kept for later calls"
    )
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/autoattack.json"))
    parser.add_argument("--side", choices=["mcjax", "published"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--eps", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        work = mcjax_work if args.side == "mcjax" else torch_work
        print(json.dumps(work(args.file, args.networks[0], args.norms[0], args.eps, args.works)))
        return
    from mcjax.core.files import write  # not for the published code's Python, which may lack JAX

    record: dict[str, Any] = {"rows": []}
    if args.output.exists():
        record = json.loads(args.output.read_text())
    known = {
        (row["data"], row["network"], row["norm"], row["num_images"]) for row in record["rows"]
    }
    record["command"] = "python -m benchmarks.autoattack " + " ".join(sys.argv[1:])
    record["machine"] = machine()
    rows = [(norm, network) for norm in args.norms for network in args.networks]
    with tempfile.TemporaryDirectory() as folder:
        for number, (norm, network) in enumerate(rows, 1):
            file = (args.inputs or Path(folder)) / f"{args.data}_{args.num_images}_{network}.npz"
            if (args.data, network, norm, args.num_images) in known:
                continue
            print(f"row {number} of {len(rows)}: {network}, {norm}", file=sys.stderr, flush=True)
            if not file.exists():
                prepare(file, args.data, network, args.num_images, args.num_steps)
            record["rows"].append(measured(args, file, network, norm))
            write(args.output, json.dumps(record, indent=1) + "\n")
            write(args.output.with_suffix(".md"), page(record))
    print(args.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
