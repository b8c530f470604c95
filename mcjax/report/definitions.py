"""The meaning of every number on a page, by the name of its column or of its entry in result.json."""

import re
from collections.abc import Iterable

TERMS = {
    "accuracy": "fraction of all images of the set that get their own label",
    "loss": "mean cross-entropy per image, in nats, without the weight-decay term",
    "t": "position on the path: 0 at the first network, 1 at its far end",
    "bonafide": "number of clean labelled images given to a repair; 0: it uses none",
    "distance": "Euclidean, over all parameters",
}

# The first pattern that matches a whole name gives its meaning. {} is the matched group.
NUMBERS = (
    (r"method", "the repair, or the network"),
    (r"path", "the pair of networks that the path joins, and how it was trained"),
    (r"bonafide", TERMS["bonafide"]),
    (r"seed", "seed of data splits, initial weights and batches"),
    (r"fold", "the fold held out, which chose t"),
    (r"num", "seeds (and folds) that the mean is over"),
    (r"network", "the suspect, or a clean reference as a control"),
    (r"form", "the form of the inverted triggers"),
    (r"class", "the most suspicious class by a trigger of this form"),
    (r"anomaly", "how much cheaper that class is to reach than the others (logarithm of the cost), and how little its trigger does on the control network; each alone and both together (without a control network the first alone), in robust standard deviations"),
    (r"attacked_class", "the attacker's class; empty if he has several"),
    (r"threshold", "the anomaly from which a trigger is evidence of a backdoor"),
    (r"success", "success of the inverted triggers of that class on the bonafide images; high on clean networks too"),
    (r"evident", "1: evidence of a backdoor; on a clean reference a false alarm"),
    (r"t", TERMS["t"]),
    (r"setting", "value of the method's hyperparameter: anp's threshold, clp's u, ft_sam's rho, and of the other tuned methods the strength: up to 1 the share of the steps, above it the multiple of the learning rate"),
    (r"acceptable", "1: accurate enough on the selection images; 0: not (a path's row is then the suspect's, a family's the strongest within one standard error of its most accurate network); in summary.csv the share of the rows with 1"),
    (r"seconds", "seconds on the clock; of a repair in a study, its training"),
    (r"(?:.*_)?attack_success_rate_official_denominator", "attack success as counted by the paper's official code: over all test images; images of the target class are not stamped, and count if they are classified correctly"),
    (r"(?:.*_)?attack_success_rate", "fraction of stamped test images that are classified as the attacker's class; images of that class are left out"),
    (r"(?:.*_)?injection_success", "fraction of the S attacked images that are classified as the attacker's class"),
    (r"selection_accuracy", "accuracy on the selection images, which choose t; no repair was trained on them"),
    (r"clean_accuracy|(?:suspect|clean_twin|clean_network|(?:taught_)?(?:path|line)_\d+)_clean_accuracy", "accuracy on untouched test images"),
    (r"(start|middle|end|ensemble)_robust_accuracy", "fraction of attacked test images that keep their label, at the {}"),
    (r"(start|middle|end)_autoattack_accuracy", "fraction of test images that keep their label under AutoAttack, at the {}"),
    (r"ensemble_transfer_accuracy", "accuracy of the ensemble of the path's points on images made against single points"),
    (r"ensemble_accuracy", "accuracy of the ensemble of the path's points: their mean softmax"),
    (r"(start|middle|end)(?:_test)?_accuracy", "accuracy on test images at the {} of the path"),
    (r"curve_worst_test_accuracy", "lowest test accuracy of any point of the curve"),
    (r"(?:curve|line)_worst_t", "t of that point"),
    (r"(start|end)_held_out_accuracy", "accuracy of the network at the {} of the path, on the images held out"),
    (r"(start|end)_held_out_robust_accuracy", "accuracy of the network at the {} of the path under attack"),
    (r"(curve|line)_worst_accuracy", "lowest accuracy of any point of the {}, on the images held out"),
    (r"(curve|line)_worst_robust_accuracy", "lowest accuracy of any point of the {} under attack"),
    (r"(curve|line)_loss_barrier", "highest loss on the {} minus that of its higher end, in nats, on the images held out"),
    (r"(curve|line)_largest_eigenvalue", "largest value on the {} of the input Hessian's largest eigenvalue (mean over images)"),
    (r"num_train", "images that the curve was trained on, and BatchNorm's statistics computed from"),
    (r"num_held_out", "images held out to measure accuracy and loss"),
    (r"num_attacked", "held-out images that were attacked; 0: no attack"),
    (r"num_hessian", "held-out images that the eigenvalue is a mean over; 0: not measured"),
    (r"curve_mean_test_accuracy", "test accuracy averaged over the curve's arc length"),
    (r"curve_drop_below_worse_end", "test accuracy of the worse network minus that of the curve's worst point"),
    (r"line_worst_test_accuracy", "lowest test accuracy of any point of the straight line"),
    (r"(curve|line)_(train|test)_loss_barrier", "highest {1} loss on the {0} minus the loss of its higher end, in nats"),
    (r"arc_length", "length of the curve in weight space (Euclidean, all parameters)"),
    (r"distance_of_ends", "length of the straight line between the networks"),
    (r"farthest_from_start_t", "t of the curve's point farthest from the first network"),
    (r"farthest_from_start_distance", "its distance from the first network"),
    (r"clean_loss_barrier", "highest mean loss on the path minus that of its higher end, on the attacked images before the attack, in nats"),
    (r"(?:.* )?robust_loss_barrier", "highest mean loss on attacked images along the path minus that of its higher end, in nats"),
    (r"(?:.* )?robust_error_barrier", "highest error (1 - accuracy) on attacked images along the path minus that of its higher end, a fraction"),
    (r"(?:.* )?autoattack_error_barrier", "highest error under AutoAttack along the path minus that of its higher end, a fraction"),
    (r"same_images_pgd_error_barrier", "the same under PGD, on the same images and at the same t's"),
    (r"(?:.* )?pearson", "linear correlation, over t, of robust loss and largest eigenvalue of the input Hessian (mean over images)"),
    (r"(?:.* )?spearman", "correlation of the ranks, over t, of robust loss and largest eigenvalue of the input Hessian"),
    (r".*_low|.*_high", "an end of the 95 % bootstrap interval: resampled points of the path, or images"),
    (r".*[_ ]interval", "half-width of the 95 % Student interval of the mean over seeds (and folds); of two, half their range"),
    (r"image", "number of images"),
    (r"floor", "lowest accuracy on the held-out images that a point had to reach"),
    (r"accuracy", TERMS["accuracy"]),
    (r"num_images", "images that were given"),
    (r"second", "what the far end of the path is"),
    (r"fit", "what was learned: labels, the suspect's answers, or its answers to mixed images"),
    (r"learning_rate", "of the first half of the training"),
    (r"rounds", "trainings of the path, or of its taught end; triggers are searched for anew before all but the first"),
    (r"suspect_accuracy", "accuracy of the suspect on the held-out images"),
    (r"repaired_accuracy", "accuracy of the chosen point on the held-out images; None: no point was accurate enough"),
    (r"num_acceptable", "points of the path that reach the lowest accuracy accepted"),
    (r"num_bonafide", "images that the path, or its taught end, was trained on"),
    (r"num_selection", "images held out, by which t was chosen"),
    (r"(?:.*_)?estimated_attack_success", "success of the inverted triggers that count as evidence, on clean images of other classes; 0 if none does"),
    (r"suspicious_success", "the same, or without evidence the success of the most suspicious trigger; t is chosen by it"),
    (r"(suspect|repaired)_success", "estimated attack success of the {} network; none without evidence"),
    (r"backdoor_found", "whether a class is so suspicious that its trigger counts as evidence of a backdoor"),
    (r"target", "the class that the evidence points to"),
    (r"no_control", "why there was no control network"),
    (r"num_forms", "forms of triggers that were looked for"),
    (r"inversion_steps", "steps of the search for each trigger"),
    (r"control_steps", "training steps of the control network"),
    (r"control", "how the control network was made: path, the middle of a path to the un-aligned copy; away, trained away from its last layer"),
    (r"control_accuracy", "accuracy on the held-out images of the control network, on which triggers were tried as well; None: there was none"),
    (r"(.*)_class", "the most suspicious class by the form {}"),
    (r"(.*)_threshold", "the anomaly from which a trigger of that form is evidence of a backdoor ({})"),
    (r"(.*)_anomaly", "how much cheaper that class is to reach than the others, and how little its trigger does on the control network; each alone and both together (without a control network the first alone), in robust standard deviations ({})"),
    (r"moved", "Euclidean distance of the chosen point's parameters from the suspect's"),
    (r"moved_relative", "that distance as a fraction of the norm of the suspect's parameters"),
)  # fmt: skip


def meaning(name: str) -> str:
    """The meaning of a number's name; "" if it is not defined.

    Example:
        >>> meaning("line_test_loss_barrier")
        'highest test loss on the line minus the loss of its higher end, in nats'
    """
    for pattern, text in NUMBERS:
        found = re.fullmatch(pattern, name)
        if found:
            return text.format(*found.groups())
    return ""


def meanings(names: Iterable[str]) -> list[tuple[str, str]]:
    """The distinct names that have a meaning, with their meanings."""
    return [(name, text) for name in dict.fromkeys(names) if (text := meaning(name))]
