"""An opened run: config, directory, data, network and devices, which all its stages share."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mcjax import data, models
from mcjax.core.bucket import in_bucket
from mcjax.core.errors import UserError
from mcjax.core.files import as_path
from mcjax.core.keys import stream
from mcjax.core.named_options import check_free
from mcjax.core.processes import everywhere, is_first, once, several
from mcjax.core.progress import say
from mcjax.core.sharding import keep, make_mesh
from mcjax.data import augmentation
from mcjax.data.batches import Batch, stack_batches
from mcjax.data.dataset import Dataset
from mcjax.data.splits import Splits, split
from mcjax.evaluation.path import default_chunk
from mcjax.models.network import Network, from_linen, in_bfloat16
from mcjax.runs.config import config_hash, validate
from mcjax.runs.lock import Lock, hold
from mcjax.runs.metric_log import MetricLog
from mcjax.runs.tensorboard import EventLog
from mcjax.runs.workdir import open_workdir
from mcjax.training.losses import MetricFn, classification_metrics

NUM_COPIES = 6  # of the parameters: two ends, a bend, its gradient and momentum, a point


@dataclasses.dataclass(frozen=True)
class Run:
    """An opened run.

    Args:
        config: The validated config.
        workdir: The run's directory.
        log: Its metrics.jsonl.
        dataset: The data set, with how it was loaded and verified.
        splits: Its disjoint parts.
        network: The network.
        mesh: The devices.
        metric_fn: Loss and accuracy of the network; one function, compiled once.
        began: `time.monotonic()` when it was opened.
        part: Prefix of this part's stages: "", or "seed_0/" in a run of several seeds.
        lock: Keeps other processes out of the directory; None in a bucket, which has no locks, and
            in all processes but the first.
    """

    config: ConfigDict
    workdir: Path
    log: MetricLog
    dataset: Dataset
    splits: Splits
    network: Network
    mesh: Mesh
    metric_fn: MetricFn
    began: float
    part: str = ""
    lock: Lock | None = None

    @property
    def config_hash(self) -> str:
        """The config's hash, as in result.json."""
        return config_hash(self.config)

    def identity(self, stage: str) -> dict[str, str]:
        """Identifies a stage's checkpoint: only runs that would compute the same restore it.

        The hash is of the config with this seed alone, so that seeds computed in separate runs can be
        combined into one.
        """
        return {**self._whose, "stage": stage}

    @functools.cached_property
    def _whose(self) -> dict[str, str]:
        config = self.config.copy_and_resolve_references()
        if "seeds" in config:
            config.seeds = ()
        hashes = json.dumps(self.splits.hashes, sort_keys=True)
        return {
            "config_hash": config_hash(config),
            "data_hash": hashlib.sha256(hashes.encode()).hexdigest()[:12],
        }

    @property
    def chunk(self) -> int:
        """Points vmapped together on a device."""
        return self.config.run.chunk or default_chunk()

    def key(self, name: str) -> jax.Array:
        """The random key of a name."""
        return stream(jax.random.key(self.config.seed), name)

    def checkpoint(self, name: str) -> Path:
        """The folder of a finished network or curve."""
        return self.workdir / "checkpoints" / name

    def partial(self, name: str) -> Path:
        """The folder of a stage's partial checkpoints."""
        return self.workdir / "checkpoints" / ".partial" / name

    @functools.cached_property
    def on_device(self) -> Mapping[str, Batch]:
        """The parts of the data that training uses, put on the device once."""
        parts = {"train": self.splits.train, "bonafide": self.splits.bonafide}
        used = {"train", self.config.curve.get("images", "train")}
        return {name: jax.tree.map(jnp.asarray, parts[name]) for name in used}

    @functools.cached_property
    def evaluated(self) -> dict[str, Batch]:
        """The stacked batches of the training and test images that a path is evaluated on."""
        parts = {"train": self.splits.train, "test": self.splits.test}
        stacks = {}
        for name, number in self.num_evaluated.items():
            batch_size = min(self.config.evaluation.batch_size, number)
            stacks[name] = keep(stack_batches(first(parts[name], number), batch_size), self.mesh)
        return stacks

    @property
    def num_evaluated(self) -> dict[str, int]:
        """Number of images per set that a path is evaluated on: the denominators of its rates."""
        parts = {"train": self.splits.train, "test": self.splits.test}
        most = {name: len(part["label"]) for name, part in parts.items()}
        evaluation = self.config.evaluation
        asked = {"train": evaluation.get("train_images"), "test": evaluation.test_images}
        return {name: min(asked[name] or most[name], most[name]) for name in parts}

    @functools.cached_property
    def normalised_by(self) -> jax.Array | None:
        """The images to recompute BatchNorm statistics from; None without BatchNorm or with `none`."""
        which = self.config.evaluation.batch_stats
        if which == "none" or not self.network.has_batch_stats:
            return None
        part = {"train": self.splits.train, "bonafide": self.splits.bonafide}[which]
        number = self.config.evaluation.batch_stats_images or None
        return keep(part["image"][:number], self.mesh)


def open_run(config: ConfigDict, workdir: str | Path, experiment: str | None = None) -> Run:
    """Checks the config, loads the data, makes the network and opens the directory.

    Args:
        config: The run's config.
        workdir: Its directory.
        experiment: The experiment that asks; a config of another one is refused.

    Returns:
        The run.

    Raises:
        UserError: A mistake of the user, found before anything is computed.
    """
    began = time.monotonic()
    validate(config)
    if experiment not in (None, config.experiment):
        raise UserError(
            f"config.experiment is {config.experiment}, but this is {experiment}; give a config of "
            f"mcjax.runs.config.{experiment}()"
        )
    options = config.model.options.to_dict()
    check_free("config.model.options", options)
    dataset = everywhere(
        lambda: data.load(
            config.data.name, data_dir=config.data.dir or None, verify=config.data.verify
        )
    )
    image_shape = dataset.train["image"].shape[1:]
    module = models.create(config.model.name, num_classes=dataset.num_classes, **options)
    network = from_linen(module, image_shape)
    _check_size(network)
    network = in_bfloat16(network) if config.model.bfloat16 else network
    augmentation.get(config.data.augmentation)
    splits = _split(dataset, config)
    _check_batches(config, len(splits.train["label"]))
    everywhere(functools.partial(_same_data, splits, once(lambda: splits.hashes)))
    place = as_path(workdir)
    locks: list[Lock] = []
    once(lambda: None if in_bucket(place) else locks.append(hold(place)))
    workdir = open_workdir(place, config, splits.hashes)
    say(f"workdir {workdir}")
    shared = (
        "" if config.run.data_parallel or not several() else "; training: see run.data_parallel"
    )
    of = f" of {jax.process_count()} processes" if several() else ""
    say(f"devices {jax.device_count()} x {jax.devices()[0].device_kind}{of}{shared}")
    shape = "x".join(map(str, image_shape))
    say(
        f"data {dataset.name}: {len(splits.train['label'])} training and "
        f"{len(splits.test['label'])} test images of {shape}; {dataset.source}"
    )
    return Run(
        config=config,
        workdir=workdir,
        log=metric_log(workdir, tensorboard=config.run.tensorboard),
        dataset=dataset,
        splits=splits,
        network=network,
        mesh=make_mesh(),
        metric_fn=classification_metrics(network.apply),
        began=began,
        lock=locks[0] if locks else None,
    )


def _check_batches(config: ConfigDict, num_images: int) -> None:
    for part in ("endpoint", "curve", "repair"):
        size = config[part].get("batch_size", 0) if part in config else 0
        if size > num_images:
            raise UserError(
                f"config.{part}.batch_size is {size}, but there are {num_images} training images; "
                "use at most as many"
            )


def _check_size(network: Network) -> None:
    """Refuses a network whose training does not fit into this machine's memory."""
    leaves = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0)))
    number = sum(math.prod(leaf.shape) for leaf in leaves)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = NUM_COPIES * 4 * number
    if needed > memory:
        raise UserError(
            f"config.model makes a network of {number:.3g} parameters, whose training needs "
            f"{needed / 2**30:.3g} GiB; this machine has {memory / 2**30:.3g}: use a smaller one"
        )


def _same_data(splits: Splits, hashes: dict[str, str]) -> None:
    if splits.hashes != hashes:
        raise UserError(
            "this process has other data than the first; give all processes the same files"
        )


def metric_log(workdir: Path, *, tensorboard: bool) -> MetricLog:
    """metrics.jsonl, and its TensorBoard copy in tensorboard/ if asked for."""
    path = workdir / "metrics.jsonl"
    wanted = tensorboard and is_first()
    return MetricLog(
        path, everywhere(lambda: EventLog(workdir / "tensorboard", path) if wanted else None)
    )


def with_seed(run: Run, seed: int) -> Run:
    """The part of a run for one seed, with its own split, keys and stages."""
    config = run.config.copy_and_resolve_references()
    config.seed = seed
    return dataclasses.replace(
        run, config=config, splits=_split(run.dataset, config), part=f"seed_{seed}/"
    )


def _split(dataset: Dataset, config: ConfigDict) -> Splits:
    return split(
        dataset,
        seed=config.seed,
        num_bonafide=config.data.num_bonafide,
        num_selection=config.data.num_selection,
        protocol=config.data.protocol,
    )


def first(examples: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """The first examples; 0 takes all."""
    return {name: values[: number or None] for name, values in examples.items()}


def describe(run: Run) -> dict[str, Any]:
    """The data entry of result.json: sizes, hashes, protocol, source."""
    splits, seeds = run.splits, run.config.get("seeds", ())
    sizes = {
        name: len(getattr(splits, name)["label"])
        for name in ("train", "bonafide", "selection", "test")
    }
    return {
        "name": run.config.data.name,
        "source": run.dataset.source,
        "protocol": splits.protocol,
        "num_images": sizes,
        "num_evaluated": run.num_evaluated,
        "hashes": {f"seed_{seed}": with_seed(run, seed).splits.hashes for seed in seeds}
        or splits.hashes,
    }
