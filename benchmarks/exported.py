"""Imports PyTorch architectures through torch.export, and measures how far mcjax is from PyTorch.

    python -m benchmarks.exported                    # all that torchvision and timm have
    python -m benchmarks.exported --only resnet18    # names that contain a word

Needs torch; torchvision and timm for their architectures. Weights are random. Writes exported.json
after each architecture, and exported.md; finished architectures are not measured again. `--seconds`
also times forward and gradient of a few, alternating with PyTorch's.
"""

import argparse
import dataclasses
import json
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax import cpu_convolution
from mcjax.interop.exported.check import compare
from mcjax.interop.exported.load import Exported, load_exported

HERE = Path(__file__).parent
TIMED = {"resnet18": 32, "small_cnn": 128, "mobilenet_v2": 32, "groups": 128}
"""Images per batch of the timed networks."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An architecture.

    Args:
        package: torchvision, timm or hand-written.
        make: Makes the module.
        size: Height and width of its images.
    """

    package: str
    make: Callable[[], Any]
    size: int = 32


def _torchvision(name: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        import torchvision

        return getattr(torchvision.models, name)(num_classes=10, **options)

    return make


def _timm(name: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        import timm

        return timm.create_model(name, num_classes=10, **options)

    return make


def _vit() -> Any:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)


def _swin(version: int) -> Callable[[], Any]:
    def make() -> Any:
        from torchvision.models import swin_transformer as swin

        v2 = {
            "block": swin.SwinTransformerBlockV2,
            "downsample_layer": swin.PatchMergingV2,
        }
        return swin.SwinTransformer(
            [2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=10, **(v2 if version == 2 else {})
        )

    return make


def _convnext() -> Any:
    from torchvision.models import convnext

    settings = [convnext.CNBlockConfig(24, 48, 2), convnext.CNBlockConfig(48, None, 2)]
    return convnext.ConvNeXt(settings, num_classes=10)


def _hand_written(name: str) -> Callable[[], Any]:
    def make() -> Any:
        from benchmarks import odd_networks

        return odd_networks.NETWORKS[name]()

    return make


CASES = {
    "vgg11_bn": Case("torchvision", _torchvision("vgg11_bn")),
    "resnet18": Case("torchvision", _torchvision("resnet18")),
    "resnet50": Case("torchvision", _torchvision("resnet50")),
    "densenet": Case(
        "torchvision", _torchvision("DenseNet", growth_rate=8, block_config=(2, 2, 2))
    ),
    "mobilenet_v2": Case("torchvision", _torchvision("mobilenet_v2")),
    "mobilenet_v3_small": Case("torchvision", _torchvision("mobilenet_v3_small")),
    "efficientnet_b0": Case("torchvision", _torchvision("efficientnet_b0")),
    "shufflenet_v2_x0_5": Case("torchvision", _torchvision("shufflenet_v2_x0_5")),
    "googlenet": Case(
        "torchvision",
        _torchvision("googlenet", aux_logits=False, init_weights=False, transform_input=True),
        64,
    ),
    "convnext": Case("torchvision", _convnext),
    "vit": Case("torchvision", _vit),
    "swin": Case("torchvision", _swin(1)),
    "swin_v2": Case("torchvision", _swin(2)),
    "timm_resnet10t": Case("timm", _timm("resnet10t")),
    "timm_regnety_002": Case("timm", _timm("regnety_002")),
    "timm_vit_tiny": Case("timm", _timm("vit_tiny_patch16_224", img_size=32, depth=4)),
    **{
        name: Case("hand-written", _hand_written(name))
        for name in ("small_cnn", "groups", "up_and_down", "attention", "shared_layers")
    },
}


def exported(case: Case) -> tuple[Any, Exported]:
    """A module with random weights and statistics, and what mcjax makes of it."""
    import torch

    torch.manual_seed(0)
    module = case.make().eval()
    with torch.no_grad():
        for p in module.parameters():
            if not p.any():  # layers that start at 0 would hide the others
                p.normal_(0, 0.1)
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                b.uniform_(-0.2, 0.2)
            if name.endswith("running_var"):
                b.uniform_(0.7, 1.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.pt2"
        example = torch.rand(2, 3, case.size, case.size)
        torch.export.save(torch.export.export(module, (example,)), path)
        return module, load_exported(path)


def measure(name: str, *, seconds: bool) -> dict[str, Any]:
    """One row: the relative errors, and the times if asked for."""
    case = CASES[name]
    began = time.monotonic()
    module, loaded = exported(case)
    found = compare(loaded.program, loaded.variables)
    row = {
        "package": case.package,
        "size": case.size,
        "parameters": int(sum(w.size for w in jax.tree.leaves(loaded.variables["params"]))),
        "passed": found.equal,
        **dataclasses.asdict(found),
        "check_seconds": time.monotonic() - began,
    }
    if seconds:
        row |= _times(module, loaded, case, TIMED[name])
    return row


def _times(module: Any, loaded: Exported, case: Case, number: int) -> dict[str, float]:
    """Seconds of a forward pass and of a gradient by all parameters: the fastest of seven, by turns."""
    import torch

    cpu_convolution.enable()
    x = np.random.default_rng(0).uniform(size=(number, case.size, case.size, 3)).astype(np.float32)
    x_torch = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    rest = {k: v for k, v in loaded.variables.items() if k != "params"}
    parameters = jax.tree.map(jnp.asarray, loaded.variables["params"])

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.square(loaded.network.apply({"params": params, **rest}, x)).mean()

    forward, gradient = jax.jit(loss), jax.jit(jax.grad(loss))

    def torch_forward() -> None:
        with torch.no_grad():
            module(x_torch).square().mean()

    def torch_gradient() -> None:
        module.zero_grad()
        module(x_torch).square().mean().backward()

    return _fastest(
        {
            "seconds_forward": lambda: jax.block_until_ready(forward(parameters, x)),
            "seconds_forward_pytorch": torch_forward,
            "seconds_gradient": lambda: jax.block_until_ready(gradient(parameters, x)),
            "seconds_gradient_pytorch": torch_gradient,
        }
    )


def _fastest(fns: dict[str, Callable[[], Any]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in fns}
    for i in range(8):
        for name, fn in fns.items():
            began = time.perf_counter()
            fn()
            if i:  # the first call compiles
                times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


def page(rows: dict[str, dict[str, Any]], where: str) -> str:
    """The Markdown page of the rows."""
    passed = sum(row["passed"] for row in rows.values())
    lines = [
        "# Programs of torch.export, compared with PyTorch",
        "",
        f"{passed} of {len(rows)} architectures compute what PyTorch computes: the relative error of logits "
        "and gradients is at most 1e-5, or ten times PyTorch's own rounding error.",
        "",
        "Random weights, 8 random images. `rounding` is PyTorch's own error, float32 against float64. Training mode: "
        "BatchNorm by the batch's statistics, no dropout.",
        "",
        "| architecture | from | pixels | parameters | logits | gradient | rounding | training: logits | statistics | rounding |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    errors = ("logits", "gradient", "rounding", "train_logits", "statistics", "train_rounding")
    for name, row in rows.items():
        cells = [f"{row[e]:.1e}" for e in errors]
        bold = name if row["passed"] else f"**{name}**"
        lines.append(
            f"| {bold} | {row['package']} | {row['size']} | {row['parameters']:,} | {' | '.join(cells)} |"
        )
    timed = {name: row for name, row in rows.items() if "seconds_forward" in row}
    if timed:
        lines += [
            "",
            "## Time",
            "",
            "Seconds, fastest of seven by turns; the gradient is by all parameters, in evaluation mode.",
            "",
            "| architecture | images | forward | PyTorch | ratio | gradient | PyTorch | ratio |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, row in timed.items():
            cells = []
            for what in ("seconds_forward", "seconds_gradient"):
                own, other = row[what], row[f"{what}_pytorch"]
                cells += [f"{own:.3f}", f"{other:.3f}", f"{own / other:.2f}"]
            lines.append(f"| {name} | {TIMED[name]} | {' | '.join(cells)} |")
    lines += ["", where, ""]
    return "\n".join(lines)


def _machine() -> str:
    versions = []
    for package in ("torch", "torchvision", "timm", "jax"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return (
        f"`python -m benchmarks.exported`, {time.strftime('%Y-%m-%d')}, {platform.machine()} with "
        f"{__import__('os').cpu_count()} cores, {', '.join(versions)}."
    )


def main() -> None:
    """Measures what is not measured yet, and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of exported.json and .md")
    parser.add_argument("--seconds", action="store_true", help="time a few networks, too")
    options = parser.parse_args()
    file = options.out / "exported.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else {}
    for name in CASES:
        timed = options.seconds and name in TIMED
        known = name in rows and (not timed or "seconds_forward" in rows[name])
        if options.only not in name or known:
            continue
        try:
            rows[name] = measure(name, seconds=timed)
        except ModuleNotFoundError as error:
            print(f"{name}: needs {error.name}", flush=True)
            continue
        print(f"{name}: {rows[name]}", flush=True)
        rows = {n: rows[n] for n in CASES if n in rows}
        file.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")
        (options.out / "exported.md").write_text(page(rows, _machine()))


if __name__ == "__main__":
    main()
