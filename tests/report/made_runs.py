"""What a run and a repair leave, made without training, for the tests of the pages."""

import numpy as np

from mcjax.repair.evidence.verdict import Finding
from mcjax.repair.repaired import Repaired

FIELDS = {"experiment": "backdoor", "seed": 0, "attack.trigger": "square", "repair.sizes": [50]}
RESULT = {
    "experiment": "backdoor",
    "config_hash": "h0",
    "status": "complete",
    "seconds": 1.5,
    "metrics": {"path_50_clean_accuracy": 0.5},
}
CONFIG = {"hash": "h0", "hashed": FIELDS, "git_revision": "r", "device_kind": "cpu"}
COLUMNS = ("method", "bonafide", "seed", "t", "clean_accuracy", "attack_success_rate")


def repaired(t):
    report = {
        "ts": np.linspace(0, 1, 3),
        "selection_accuracy": np.array([0.9, 0.8, 0.9]),
        "bonafide_accuracy": np.array([1.0, 0.95, 1.0]),
        "distance": np.array([0.0, 2.5, 0.0]),
        "estimated_attack_success": np.array([1.0, 0.125, 1.0]),
        "success_by_form": {
            "patch": np.array([1.0, 0.125, 1.0]),
            "warp": np.array([0.5, 0.25, 0.5]),
        },
        "findings": [
            Finding("patch", 3, 4.5, 3.0, 0.2, 0.99),
            Finding("warp", 2, 1.0, 2.5, 2.0, 0.7),
        ],
        "control": "path",
        "num_forms": 5,
        "inversion_steps": 200,
        "control_steps": 1000,
        "control_accuracy": 0.85,
        "no_control": "",
        "suspect_success": 1.0,
        "repaired_success": 0.125,
        "backdoor_found": True,
        "target": 3,
        "pictures": {"clean": np.zeros([2, 4, 4, 1]), "patch": np.full([2, 4, 4, 1], 0.25)},
        "suspect_accuracy": 0.9,
        "repaired_accuracy": 0.8,
        "floor": 0.75,
        "num_acceptable": 1,
        "moved": 2.5,
        "moved_relative": 0.1,
        "second": "given",
        "fit": "answers",
        "learning_rate": 0.05,
        "rounds": 2,
        "num_bonafide": 40,
        "num_selection": 10,
        "seconds": 1.0,
    }
    return Repaired({}, t, None, report)
