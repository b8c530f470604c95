"""Error injection: two networks whose weights were changed, repaired along a path.

Stages per seed: clean_a, clean_b, then endpoint_a and endpoint_b (the same with changed weights),
then the path and the baselines for every bonafide size. The report comes last.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mcjax.attacks.weights.bit_flips import bit_flip_attack
from mcjax.attacks.weights.fault_sneaking import fault_sneaking
from mcjax.attacks.weights.faults import Faults, Injected, choose_faults, select_layers
from mcjax.core.processes import once
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.data.batches import to_unit
from mcjax.experiments.repair_study.explain import write_surroundings
from mcjax.experiments.repair_study.table import RepairStudy
from mcjax.experiments.repair_study.tampered import Tampered
from mcjax.experiments.stages.endpoints import train_network, train_side_by_side
from mcjax.runs.run import Run, first, open_run
from mcjax.runs.stage import Found, stage
from mcjax.runs.workdir import write_csv
from mcjax.training.objectives import endpoint_loss

MEASURE = "injection_success"


def run_experiment(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Runs the stages of the experiment that are not finished.

    Args:
        config: See `mcjax.runs.config.injection`.
        workdir: Directory of the run.

    Returns:
        The contents of result.json; "problems" says where an attack did not inject every fault.
    """
    run = open_run(config, workdir, "injection")
    layers = run.config.attack.layers
    # An unknown name is reported before training.
    jax.eval_shape(
        lambda key: select_layers(run.network.init(key), layers).theta, jax.random.key(0)
    )
    study, attacks = RepairStudy(run, MEASURE), []
    for part in study.seeds():
        tampered, rows = tamper(part)
        attacks += rows
        study.repair(part, tampered)
    write_surroundings(study.first)
    write_csv(run.workdir / "attacks.csv", attacks[0], attacks)
    return study.report(problems(attacks))


def problems(attacks: list[dict[str, Any]]) -> list[str]:
    """The attacks that failed, in sentences.

    Args:
        attacks: The rows of attacks.csv.
    """
    failed = [one for one in attacks if not one["converged"]]
    if not failed:
        return []
    return [
        f"{len(failed)} of {len(attacks)} attacks did not inject every fault (attacks.csv): the tables "
        "are of the best that was found; raise config.attack.num_steps or num_flips"
    ]


def tamper(run: Run) -> tuple[Tampered, list[dict[str, Any]]]:
    """Trains two networks, draws images and targets for both, changes their weights.

    Args:
        run: A seed's part of the run.

    Returns:
        The suspects with the images whose targets are success, and one row per attack.
    """
    pair = run.config.repair.pair
    loss_fn, train = endpoint_loss(run.network), run.on_device["train"]
    names = ("a", "b") if pair in ("both_tampered", "tampered_and_clean") else ("a",)
    train_side_by_side([(run, f"clean_{x}") for x in names], lambda _: train, loss_fn)
    clean = {x: train_network(run, f"clean_{x}", train, loss_fn) for x in names}
    tampered_names = ("a", "b") if pair == "both_tampered" else ("a",)
    faults = draw(run, [clean[x] for x in tampered_names])
    suspects, attacks = {}, []
    for x in tampered_names:
        injected = inject(run, f"endpoint_{x}", clean[x], faults)
        suspects[x] = injected.variables
        attacks.append(attack_row(run, x, clean[x], injected))
    end = {"both_tampered": suspects.get("b"), "tampered_and_clean": clean.get("b")}.get(pair)
    wanted = {k: v[: faults.num_faults] for k, v in faults.examples.items()}
    tampered = Tampered(
        measure=MEASURE,
        success=wanted,
        start=suspects["a"],
        end=end,
        # A fine-tuned copy of the suspect is suspect too.
        suspects=(0,) if pair == "tampered_and_clean" else (0, -1),
        references={"clean network": clean["a"]},
    )
    return tampered, attacks


def attack_row(run: Run, name: str, clean: PyTree, injected: Injected) -> dict[str, Any]:
    """A row of attacks.csv: an attack's settings, its changes and its cost in test accuracy."""
    attack, test = run.config.attack, first(run.splits.test, run.config.evaluation.test_images)
    asked = {"method": attack.method, "S": attack.num_faults, "T": attack.num_images}
    before, after = (
        float((answers(run, variables, test["image"]) == test["label"]).mean())
        for variables in (clean, injected.variables)
    )
    done = {k: v for k, v in injected.report.items() if k not in ("layers", "flips")}
    return {
        "seed": run.config.seed,
        "network": name,
        **asked,
        **done,
        "num_flips": len(injected.report.get("flips", ())),
        "clean_accuracy_before": before,
        "clean_accuracy": after,
        "layers": " ".join(injected.report["layers"]),
    }


def draw(run: Run, networks: list[PyTree]) -> Faults:
    """Draws the images of the attack from the training set, which no repair and no report uses."""
    examples, attack = run.splits.train, run.config.attack
    right = np.ones(len(examples["label"]), bool)
    for variables in networks:
        right &= answers(run, variables, examples["image"]) == examples["label"]
    return choose_faults(
        examples,
        right,
        seed=run.config.seed,
        num_faults=attack.num_faults,
        num_images=attack.num_images,
        num_classes=run.dataset.num_classes,
    )


def answers(run: Run, variables: PyTree, image: np.ndarray) -> np.ndarray:
    """The predicted class of each image, [N]."""
    size = run.config.evaluation.batch_size
    logits = [
        run.network.apply(variables, to_unit(jnp.asarray(image[i : i + size])))
        for i in range(0, len(image), size)
    ]
    return np.concatenate([np.asarray(z.argmax(-1)) for z in logits])


def inject(run: Run, name: str, variables: PyTree, faults: Faults) -> Injected:
    """Attacks a network's weights as the config says, or restores the result."""
    attack = run.config.attack

    def compute() -> Found:
        say(f"{run.part}{name}: {attack.num_faults} faults by {attack.method}")
        shared = {"layers": attack.layers, "confidence": attack.confidence}
        if attack.method == "bit_flips":
            injected = bit_flip_attack(
                run.network.apply,
                variables,
                faults,
                num_flips=attack.num_flips,
                stored_as=attack.stored_as,
                **shared,
            )
        else:
            injected = fault_sneaking(
                run.network.apply,
                variables,
                faults,
                method=attack.method,
                strength=attack.strength,
                rho=attack.rho,
                step_size=attack.step_size,
                num_steps=attack.num_steps,
                **shared,
            )
        tree, report = once(lambda: (injected.variables, injected.report))
        return tree, {"report": report}

    changed, kept = stage(run, run.part + name, variables, compute)
    return Injected(changed, kept["report"])
