"""APGD beside the published PyTorch code, and exact input-Hessian eigenvalues beside power iteration.

    python -m benchmarks.attacks [--eps 0.02] [--works apgd eigenvalue] [--torch_python PYTHON]

A small convolutional network is trained on Fashion-MNIST with mcjax. Then each framework works on the
same weights and images in a process of its own, in turns, --repeats times; medians are printed. How
many images withstand matters: mcjax stops working on those that do not, see --eps. Needs
torch and, for apgd, the package autoattack or pyautoattack, in this Python or in the one named by
--torch_python. Times leave out the first call, which compiles.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 250
NUM_STEPS = 100
LOSSES = {"cross_entropy": "ce", "dlr": "dlr"}
POWER_ITERATIONS = (20, 50)


def prepare(file: Path, num_images: int, train_steps: int) -> None:
    """Trains the network and writes it with the test images to attack.

    Args:
        file: The .npz file to write.
        num_images: Test images.
        train_steps: Steps of training.
    """
    import jax
    import jax.numpy as jnp

    from mcjax import cpu_convolution, data, models
    from mcjax.core.tree import by_name
    from mcjax.models.network import from_linen
    from mcjax.training import init_state, sgd, train
    from mcjax.training.objectives import endpoint_loss

    cpu_convolution.enable()
    fashion = data.load("fashion_mnist")
    net = from_linen(models.create("cnn", num_classes=10), (28, 28, 1))
    optimizer = sgd(0.05, train_steps, momentum=0.9, weight_decay=5e-4)
    state = init_state(net.init(jax.random.key(0))["params"], {}, optimizer)
    examples = {k: jnp.asarray(v) for k, v in fashion.train.items()}
    for trained, metrics in train(
        jax.random.key(1), state, None, examples, num_steps=train_steps, steps_per_dispatch=50,
        loss_fn=endpoint_loss(net), optimizer=optimizer, batch_size=128,
        augment_fn=lambda key, image: image,
    ):  # fmt: skip
        print(f"step {int(trained.step)}: {metrics}", file=sys.stderr)
        state = trained
    arrays = {f"params:{k}": v for k, v in by_name(state.params).items()}
    arrays["images"] = fashion.test["image"][:num_images].astype(np.float32) / 255
    arrays["labels"] = fashion.test["label"][:num_images]
    np.savez(file, **arrays)


def timed(f: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and its result."""
    began = time.perf_counter()
    result = f()
    return time.perf_counter() - began, result


def mcjax_work(file: Path, works: list[str], eps: float) -> dict[str, Any]:
    """Ours: {"apgd": {loss: {...}}, "eigenvalue": {...}}."""
    import jax
    import jax.numpy as jnp

    from mcjax import apgd, cpu_convolution, input_hessian_eigenvalue, models
    from mcjax.models.network import from_linen

    cpu_convolution.enable()
    arrays = dict(np.load(file))
    net = from_linen(models.create("cnn", num_classes=10), (28, 28, 1))
    params: dict[str, Any] = {}
    for name, value in arrays.items():
        if name.startswith("params:"):
            layer, part = name.removeprefix("params:").split("/")
            params.setdefault(layer, {})[part] = jnp.asarray(value)
    x, y = jnp.asarray(arrays["images"]), jnp.asarray(arrays["labels"])
    pieces = [slice(i, i + BATCH) for i in range(0, len(x), BATCH)]

    def logits_fn(x: jax.Array) -> jax.Array:
        return net.apply({"params": params}, x)

    def all_of(f: Callable[[jax.Array, jax.Array], jax.Array]) -> np.ndarray:
        return np.concatenate([np.asarray(f(x[p], y[p])) for p in pieces])

    answer: dict[str, Any] = {"clean_accuracy": float((logits_fn(x).argmax(1) == y).mean())}
    for loss in LOSSES if "apgd" in works else ():
        for early_stop in (True, False):

            def attack(
                x: jax.Array, y: jax.Array, loss: str = loss, stop: bool = early_stop
            ) -> Any:
                return apgd(
                    jax.random.key(0), logits_fn, x, y, eps=eps, num_steps=NUM_STEPS, loss=loss,
                    early_stop=stop,
                )  # fmt: skip

            first, _ = timed(lambda f=attack: np.asarray(f(x[pieces[0]], y[pieces[0]])))  # type: ignore[misc]
            seconds, x_adv = timed(lambda f=attack: all_of(f))  # type: ignore[misc]
            robust = float((logits_fn(jnp.asarray(x_adv)).argmax(1) == y).mean())
            answer[f"apgd {loss}" + ("" if early_stop else ", to the end")] = {
                "seconds": seconds, "first_call": first, "robust_accuracy": robust,
            }  # fmt: skip
    if "eigenvalue" in works:

        def exact(x: jax.Array, y: jax.Array) -> jax.Array:
            return input_hessian_eigenvalue(
                logits_fn, x, y, "exact", piecewise_linear=True
            ).eigenvalue

        first, _ = timed(lambda: np.asarray(exact(x[pieces[0]], y[pieces[0]])))
        seconds, values = timed(lambda: all_of(exact))
        answer["eigenvalue"] = {
            "seconds": seconds, "first_call": first, "values": values.astype(float).tolist(),
        }  # fmt: skip
    return answer


def torch_work(file: Path, works: list[str], eps: float) -> dict[str, Any]:
    """The same in PyTorch: the published APGD, and double-backward power iteration."""
    import torch
    import torch.nn.functional as F

    arrays = dict(np.load(file))
    p = {k.removeprefix("params:"): torch.from_numpy(v) for k, v in arrays.items() if ":" in k}
    p = {
        k: v.permute(3, 2, 0, 1).contiguous() if v.ndim == 4 else v.T.contiguous() if v.ndim == 2 else v
        for k, v in p.items()
    }  # fmt: skip
    x = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(arrays["labels"]).long()

    def logits_fn(x: Any) -> Any:
        for i in (1, 2, 3):
            x = F.conv2d(x, p[f"conv{i}/kernel"], p[f"conv{i}/bias"], padding=1)
            x = F.max_pool2d(F.relu(x), 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return F.linear(F.relu(F.linear(x, p["fc1/kernel"], p["fc1/bias"])), p["fc2/kernel"], p["fc2/bias"])  # fmt: skip

    with torch.no_grad():
        answer: dict[str, Any] = {
            "clean_accuracy": float((logits_fn(x).argmax(1) == y).float().mean())
        }
    if "apgd" in works:
        try:
            published = importlib.import_module("autoattack.autopgd_base")
        except ImportError:
            published = importlib.import_module("pyautoattack.autopgd_base")
        for loss, name in LOSSES.items():
            attack = published.APGDAttack(
                logits_fn, n_iter=NUM_STEPS, norm="Linf", eps=eps, loss=name
            )

            def whole(attack: Any = attack) -> Any:
                return torch.cat(
                    [
                        attack.perturb(x[i : i + BATCH], y[i : i + BATCH])
                        for i in range(0, len(x), BATCH)
                    ]
                )

            seconds, x_adv = timed(whole)
            with torch.no_grad():
                robust = float((logits_fn(x_adv).argmax(1) == y).float().mean())
            answer[f"apgd {loss}"] = {"seconds": seconds, "robust_accuracy": robust}
    if "eigenvalue" in works:

        def power(num_iters: int) -> list[float]:
            found: list[float] = []
            for i in range(0, len(x), BATCH):
                z = x[i : i + BATCH].clone().requires_grad_()
                loss = F.cross_entropy(logits_fn(z), y[i : i + BATCH], reduction="sum")
                (g,) = torch.autograd.grad(loss, z, create_graph=True)
                v = torch.randn_like(z)
                for _ in range(num_iters):
                    v = v / v.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
                    (w,) = torch.autograd.grad(g, z, v, retain_graph=True)
                    theta, v = (v * w).sum((1, 2, 3)), w
                found += theta.tolist()
            return found

        for num_iters in POWER_ITERATIONS:
            seconds, values = timed(lambda n=num_iters: power(n))  # type: ignore[misc]
            answer[f"eigenvalue, {num_iters} iterations"] = {"seconds": seconds, "values": values}
    return answer


def medians(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The last of some answers of the same work, with the median of their times."""
    last = answers[-1]
    for name, work in last.items():
        if isinstance(work, dict):
            work["seconds"] = float(np.median([answer[name]["seconds"] for answer in answers]))
    return last


def report(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Prints the ratios."""
    print(
        f"clean accuracy: mcjax {ours['clean_accuracy']:.4f}, torch {theirs['clean_accuracy']:.4f}"
    )
    for loss in LOSSES:
        if (name := f"apgd {loss}") not in ours:
            continue
        b = theirs[name]
        for ending in ("", ", to the end"):
            a = ours[name + ending]
            print(
                f"{name}{ending}: mcjax {a['seconds']:.1f} s (first call {a['first_call']:.1f} s), "
                f"published {b['seconds']:.1f} s, ratio {b['seconds'] / a['seconds']:.2f}; robust "
                f"accuracy {a['robust_accuracy']:.4f} and {b['robust_accuracy']:.4f}"
            )
    if "eigenvalue" in ours:
        a = ours["eigenvalue"]
        exact = np.array(a["values"])
        for num_iters in POWER_ITERATIONS:
            b = theirs[f"eigenvalue, {num_iters} iterations"]
            error = np.abs(np.array(b["values"]) - exact) / np.maximum(exact, 1e-12)
            print(
                f"eigenvalues: mcjax exact {a['seconds']:.2f} s, torch {num_iters} power iterations "
                f"{b['seconds']:.2f} s, ratio {b['seconds'] / a['seconds']:.2f}; torch's relative "
                f"error: median {np.median(error):.1e}, worst {error.max():.1e}"
            )


def main() -> None:
    """Runs both sides and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_images", type=int, default=500)
    parser.add_argument("--eps", type=float, default=0.02, help="APGD's, l_inf")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--train_steps", type=int, default=150)
    parser.add_argument("--works", nargs="+", default=["apgd", "eigenvalue"])
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--file", type=Path, help="inputs: written if not there, else used again")
    parser.add_argument("--side", choices=["mcjax", "torch", "prepare"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side in ("mcjax", "torch"):
        work = mcjax_work if args.side == "mcjax" else torch_work
        print(json.dumps(work(args.file, args.works, args.eps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or Path(folder) / "inputs.npz"
        if not file.exists():
            prepare(file, args.num_images, args.train_steps)
        if args.side == "prepare":
            return
        answers: dict[str, list[dict[str, Any]]] = {"mcjax": [], "torch": []}
        for _ in range(args.repeats):
            for side, python in (("mcjax", sys.executable), ("torch", args.torch_python)):
                command = [
                    python, "-m", "benchmarks.attacks", "--side", side, "--file", str(file),
                    "--eps", str(args.eps), "--works", *args.works,
                ]  # fmt: skip
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                answers[side].append(json.loads(done.stdout.splitlines()[-1]))
    report(*(medians(of_side) for of_side in answers.values()))


if __name__ == "__main__":
    main()
