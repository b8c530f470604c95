"""The same work in PyTorch: eager as a practitioner would write it, and tuned."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.torch_networks import NETWORKS, Tensors

# As in benchmarks/inputs.py, which imports JAX; a test compares them.
BATCH_SIZE, EVALUATION_BATCH = 128, 125
WEIGHT_DECAY, LEARNING_RATE, MOMENTUM = 5e-4, 0.01, 0.9
T, EPS, STEP_SIZE, PGD_STEPS = 0.3, 8 / 255, 2 / 255, 10

VARIANTS = ("eager", "no_grad", "channels_last", "compiled")
Work = Callable[[int], dict[str, np.ndarray]]


def prepare(name: str, file: Path, variant: str) -> dict[str, Work]:
    """The functions to time, as `mcjax_work.prepare`'s.

    Args:
        name: The network.
        file: From `inputs.write_inputs`.
        variant: "eager": w(t) anew for every batch, gradients recorded, as the published code
            does. "no_grad": w(t) once a point, nothing recorded that is not used.
            "channels_last": no_grad, with that memory format. "compiled": no_grad, with
            torch.compile.

    Returns:
        Functions by name of the work.
    """
    torch.set_num_threads(2)
    data = dict(np.load(file))
    forward = NETWORKS[name]
    if variant == "compiled":
        forward = torch.compile(forward)
    tuned = variant != "eager"
    memory = torch.channels_last if variant == "channels_last" else torch.contiguous_format

    def as_image(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=memory)

    def tensors(point: str, part: str) -> Tensors:
        prefix = f"{point}:{part}:"
        return {
            k.removeprefix(prefix): _from_jax(data[k], memory) for k in data if k.startswith(prefix)
        }

    control = [tensors(point, "params") for point in ("start", "bend", "end")]
    first_stats = tensors("start", "batch_stats")
    end_stats = tensors("end", "batch_stats")
    images, labels = as_image(data["images"]), torch.from_numpy(data["labels"]).long()
    nothing: Callable[[], AbstractContextManager] = torch.no_grad if tuned else nullcontext

    def at(t: float, bend: Tensors) -> Tensors:
        c = [math.comb(2, j) * t**j * (1 - t) ** (2 - j) for j in range(3)]
        start, _, end = control
        return {k: c[0] * start[k] + c[1] * bend[k] + c[2] * end[k] for k in start}

    def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(
            zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True)
        )

    def trainable_bend() -> Tensors:
        return {k: v.clone().requires_grad_() for k, v in control[1].items()}

    def step(num_steps: int) -> dict[str, np.ndarray]:
        bend = trainable_bend()
        stats = {k: v.clone() for k, v in first_stats.items()}
        optimizer = torch.optim.SGD(bend.values(), lr=LEARNING_RATE, momentum=MOMENTUM)
        losses = []
        for i in range(num_steps):
            index = torch.from_numpy(data["indices"][i]).long()
            w = at(float(data["ts"][i]), bend)
            logits = forward(w, stats, images[index], True)
            l2 = sum((v**2).sum() for v in w.values())
            loss = F.cross_entropy(logits, labels[index]) + 0.5 * WEIGHT_DECAY * l2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return {"losses": np.asarray(losses)}

    def normalised(t: float, bend: Tensors) -> Tensors:
        """Statistics at t: reset, then a cumulative average over all images."""
        if not first_stats or t in (0.0, 1.0):
            return first_stats if t == 0.0 or not first_stats else end_stats
        stats = {k: torch.zeros_like(v) for k, v in first_stats.items()}
        seen = 0
        w = at(t, bend)
        for x, _ in batches():
            if not tuned:
                w = at(t, bend)
            seen += len(x)
            with torch.no_grad():
                # Never compiled: each momentum would be compiled anew.
                NETWORKS[name](w, stats, x, True, len(x) / seen)
        return stats

    def point(t: float) -> tuple[float, float]:
        bend = trainable_bend()
        with nothing():
            stats = normalised(t, bend)
            w = at(t, bend)
            loss, correct = 0.0, 0.0
            for x, y in batches():
                if not tuned:
                    w = at(t, bend)
                logits = forward(w, stats, x, False)
                loss += F.cross_entropy(logits, y, reduction="sum").item()
                correct += (logits.argmax(1) == y).sum().item()
        return loss / len(labels), correct / len(labels)

    def path(num_points: int) -> dict[str, np.ndarray]:
        ts = np.linspace(0, 1, num_points) if num_points > 1 else np.array([T])
        values = np.array([point(float(t)) for t in ts])
        return {"loss": values[:, 0], "accuracy": values[:, 1]}

    stats_at_t: list[Tensors] = []

    def pgd(_: int) -> dict[str, np.ndarray]:
        bend = trainable_bend()
        if not stats_at_t:
            with nothing():
                stats_at_t.append(normalised(T, bend))
        stats = stats_at_t[0]
        x, y = images[:BATCH_SIZE], labels[:BATCH_SIZE]
        if tuned:
            with torch.no_grad():
                w = at(T, bend)
        x_adv = x.clone()
        for _step in range(PGD_STEPS):
            if not tuned:
                w = at(T, bend)
            x_adv.requires_grad_()
            loss = F.cross_entropy(forward(w, stats, x_adv, False), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            with torch.no_grad():
                x_adv = x_adv + STEP_SIZE * gradient.sign()
                x_adv = torch.minimum(torch.maximum(x_adv, x - EPS), x + EPS).clamp(0, 1)
        return {"images": x_adv.detach().permute(0, 2, 3, 1).contiguous().numpy()}

    return {"step": step, "point": lambda _: path(1), "pgd": pgd, "path": path}


def _from_jax(array: np.ndarray, memory: torch.memory_format) -> torch.Tensor:
    if array.ndim == 4:  # HWIO to OIHW
        return torch.from_numpy(array).permute(3, 2, 0, 1).contiguous(memory_format=memory)
    return torch.from_numpy(np.ascontiguousarray(array.T))
