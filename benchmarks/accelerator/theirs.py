"""The same work in PyTorch: eager as a practitioner writes it, and tuned in three ways.

On a CPU only eager and channels_last run: that is for the script's own test.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.accelerator import numbers
from benchmarks.torch_networks import NETWORKS, Tensors

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
Results = dict[str, Any]
Images = torch.Tensor  # uint8 [B, H, W, C]
Run = Callable[[], Results]


def variants() -> tuple[str, ...]:
    """What is timed on this device."""
    both = ("eager", "channels_last")
    return (*both, "graphs", "compiled") if CUDA else both


def prepare(name: str, shapes: Path, drawn: dict[str, np.ndarray]) -> dict[str, Callable[..., Any]]:
    """The functions to time; each takes a precision and a variant.

    eager          contiguous images, every loss read back, w(t) anew for each batch: as published
    channels_last  that memory format, w(t) once a point, nothing read back before the end
    graphs         channels_last, what is repeated captured as a CUDA graph
    compiled       channels_last, torch.compile

    The first call of a work builds it: capture and compilation are in no timing.

    Args:
        name: A network of `networks`.
        shapes: Names and shapes of its variables.
        drawn: "ts" and "indices" of the training steps.

    Returns:
        {"step", "point", "pgd", "power": (precision, variant) -> results with "seconds",
        "variants": their names here, "forget": frees what the calls so far have built, "memory"}.
    """
    if not CUDA:
        torch.set_num_threads(1)  # the script's test shares its machine
    work = _Work(name, shapes, drawn)
    built: dict[tuple[str, str, str], Run] = {}

    def timed(kind: str, precision: str, variant: str) -> Results:
        work.use(precision)
        key = (kind, precision, variant)
        if key not in built:
            built[key] = getattr(work, kind)(precision, variant)
            built[key]()
        _wait()
        began = time.perf_counter()
        results = built[key]()
        _wait()
        return {**results, "seconds": time.perf_counter() - began}

    def forget() -> None:
        built.clear()
        torch.compiler.reset()
        if CUDA:
            torch.cuda.empty_cache()

    kinds = ("step", "point", "pgd", "power")
    return {
        **{kind: functools.partial(timed, kind) for kind in kinds},
        "variants": variants,
        "forget": forget,
        "memory": _memory,
    }


class _Work:
    """What the works share: control points, images, draws."""

    def __init__(self, name: str, shapes: Path, drawn: dict[str, np.ndarray]):
        self.size = numbers.sizes(name)
        self.forward = NETWORKS[name]
        named = numbers.read_shapes(shapes)
        self._control = {point: numbers.variables(named, point) for point in numbers.POINTS}
        self.data = {
            split: [torch.from_numpy(a).to(DEVICE) for a in numbers.images(self.size, split)]
            for split in ("train", "test")
        }
        self.images, self.labels = self.data["train"][0], self.data["train"][1].long()
        self.ts = [float(t) for t in drawn["ts"]]
        self.indices = torch.from_numpy(np.array(drawn["indices"])).long().to(DEVICE)
        self._tensors: dict[Any, Tensors] = {}

    def use(self, precision: str) -> None:
        """Switches TF32 on or off."""
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"

    def tensors(self, point: str, part: str, memory: torch.memory_format) -> Tensors:
        """Parameters or statistics of a control point, on the device; not to be changed."""
        key = (point, part, memory)
        if key not in self._tensors:
            prefix = f"{part}/"
            self._tensors[key] = {
                k.removeprefix(prefix): _tensor(v, memory)
                for k, v in self._control[point].items()
                if k.startswith(prefix)
            }
        return self._tensors[key]

    def at(self, t: float, memory: torch.memory_format) -> Tensors:
        """w(t) of the Bezier curve."""
        start, bend, end = (self.tensors(p, "params", memory) for p in numbers.POINTS)
        a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t**2
        return {k: a * start[k] + b * bend[k] + c * end[k] for k in start}

    def normalised(self, precision: str, memory: torch.memory_format) -> tuple[Tensors, Tensors]:
        """w(T) and its statistics: a cumulative average over all training images."""
        w = self.at(numbers.T, memory)
        stats = {k: v.clone() for k, v in self.tensors("start", "batch_stats", memory).items()}
        if stats:
            seen = 0
            with torch.no_grad(), _half(precision):
                for x in self.images.split(self.size.evaluation_batch):
                    seen += len(x)
                    self.forward(w, stats, _input(x, memory), True, len(x) / seen)
        return w, stats

    def step(self, precision: str, variant: str) -> Run:
        """Training steps of the curve's bend."""
        memory = _memory_of(variant)
        start, bend, end = (self.tensors(p, "params", memory) for p in numbers.POINTS)
        trained = {k: v.clone().requires_grad_() for k, v in bend.items()}
        leaves = list(trained.values())
        momenta = [torch.zeros_like(v) for v in leaves]
        stats = {k: v.clone() for k, v in self.tensors("start", "batch_stats", memory).items()}

        def loss_of(x: Images, y: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            w = {k: c[0] * start[k] + c[1] * trained[k] + c[2] * end[k] for k in start}
            with _half(precision):
                logits = self.forward(w, stats, _input(x, memory), True)
            l2 = sum((v**2).sum() for v in w.values())
            return F.cross_entropy(logits.float(), y) + 0.5 * numbers.WEIGHT_DECAY * l2

        compiled = torch.compile(loss_of) if variant == "compiled" else loss_of

        def one(x: Images, y: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            loss = compiled(x, y, c)
            gradients = torch.autograd.grad(loss, leaves)
            with torch.no_grad():
                torch._foreach_mul_(momenta, numbers.MOMENTUM)
                torch._foreach_add_(momenta, gradients)
                torch._foreach_add_(leaves, momenta, alpha=-numbers.LEARNING_RATE)
            return loss.detach()

        coefficients = torch.tensor(
            [[math.comb(2, j) * t**j * (1 - t) ** (2 - j) for j in range(3)] for t in self.ts],
            dtype=torch.float32, device=DEVICE,
        )  # fmt: skip

        def take(i: int) -> tuple[torch.Tensor, ...]:
            chosen = self.indices[i]
            return self.images[chosen], self.labels[chosen], coefficients[i]

        advance = _graphed(one, *take(0)) if variant == "graphs" else one

        def run() -> Results:
            with torch.no_grad():  # from the start again, as mcjax's calls do
                for leaf, value in zip(leaves, bend.values(), strict=True):
                    leaf.copy_(value)
                torch._foreach_zero_(momenta)
            losses = []
            for i in range(self.size.steps):
                loss = advance(*take(i))
                losses.append(loss.item() if variant == "eager" else loss.clone())
            return {"loss": np.asarray([float(loss) for loss in losses], np.float32)}

        return run

    def point(self, precision: str, variant: str) -> Run:
        """Loss on training and test images at T, statistics recomputed."""
        memory = _memory_of(variant)
        w, stats = self.normalised(precision, memory)
        total = torch.zeros((), device=DEVICE)

        def add(x: Images, y: torch.Tensor) -> None:
            with _half(precision):
                logits = self.forward(w, stats, _input(x, memory), False)
            total.add_(F.cross_entropy(logits.float(), y, reduction="sum"))

        n = self.size.evaluation_batch
        with torch.no_grad():
            add_one = torch.compile(add) if variant == "compiled" else add
            if variant == "graphs":
                add_one = _graphed(add, self.images[:n], self.labels[:n])

        def run() -> Results:
            means = []
            with torch.no_grad():
                fresh = self.normalised(precision, memory)
                for old, new in zip((w, stats), fresh, strict=True):
                    for k, v in new.items():  # in place, where the graph looks
                        old[k].copy_(v)
                for x, y in self.data.values():
                    total.zero_()
                    for xs, ys in zip(x.split(n), y.long().split(n), strict=True):
                        if variant == "eager":
                            w.update(self.at(numbers.T, memory))
                        add_one(xs, ys)
                        if variant == "eager":
                            total.item()
                    means.append(total.item() / len(y))
            return {"loss": np.asarray(means)[:, None]}

        return run

    def pgd(self, precision: str, variant: str) -> Run:
        """PGD on a batch at T."""
        memory = _memory_of(variant)
        w, stats = self.normalised(precision, memory)
        n = self.size.evaluation_batch
        x, y = _input(self.images[:n], memory), self.labels[:n]

        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            with _half(precision):
                logits = self.forward(w, stats, x, False)
            return F.cross_entropy(logits.float(), y, reduction="sum")

        compiled = torch.compile(loss_of) if variant == "compiled" else loss_of

        def one(x_adv: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x_adv = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(compiled(x_adv, y), x_adv)
            with torch.no_grad():
                moved = x_adv + numbers.STEP_SIZE * gradient.sign()
                return moved.clamp(x - numbers.EPS, x + numbers.EPS).clamp(0, 1)

        move = _graphed(one, x, x, y) if variant == "graphs" else one

        def run() -> Results:
            x_adv = x.clone()
            for _ in range(numbers.PGD_STEPS):
                x_adv = move(x_adv, x, y)
            with torch.no_grad():
                return {"loss": np.asarray(loss_of(x_adv, y).item() / n)}

        return run

    def power(self, precision: str, variant: str) -> Run:
        """Power iteration on the input Hessian by double backward."""
        memory = _memory_of(variant)
        w, stats = self.normalised(precision, memory)
        x = _input(self.images[: self.size.hessian], memory)
        y = self.labels[: self.size.hessian]

        def run() -> Results:
            leaf = x.clone().requires_grad_()
            with _half(precision):
                logits = self.forward(w, stats, leaf, False)
            loss = F.cross_entropy(logits.float(), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
            v = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0)).to(leaf)
            value = torch.zeros(len(leaf))
            for _ in range(numbers.POWER_PRODUCTS):
                v = v / v.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
                (hv,) = torch.autograd.grad((gradient * v).sum(), leaf, retain_graph=True)
                value = (v * hv).flatten(1).sum(1)
                v = hv
            return {"eigenvalue": value.detach().cpu().numpy()}

        return run


def _half(precision: str) -> Any:
    if precision == "bfloat16":
        return torch.autocast(DEVICE, torch.bfloat16)
    return contextlib.nullcontext()


def _memory_of(variant: str) -> torch.memory_format:
    return torch.contiguous_format if variant == "eager" else torch.channels_last


def _input(x: Images, memory: torch.memory_format) -> torch.Tensor:
    return (x.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=memory)


def _graphed(fn: Callable[..., Any], *like: torch.Tensor) -> Callable[..., Any]:
    """Fn as one CUDA graph: its arguments are copied to where the graph reads them."""
    static = [x.clone() for x in like]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            fn(*static)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fn(*static)

    def replay(*args: torch.Tensor) -> Any:
        for place, x in zip(static, args, strict=True):
            place.copy_(x)
        graph.replay()
        return out

    return replay


def _wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def _memory() -> Results:
    return {"peak_bytes": torch.cuda.max_memory_allocated() if CUDA else 0}


def _tensor(array: np.ndarray, memory: torch.memory_format) -> torch.Tensor:
    if array.ndim == 4:  # HWIO to OIHW
        return (
            torch.from_numpy(array).permute(3, 2, 0, 1).to(DEVICE).contiguous(memory_format=memory)
        )
    return torch.from_numpy(np.ascontiguousarray(array.T)).to(DEVICE)
