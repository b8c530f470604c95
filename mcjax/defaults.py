"""The fields of every experiment's config, with their defaults: those of the digits runs."""

from ml_collections import ConfigDict


def connect() -> ConfigDict:
    """The fields of `experiment = "connect"` with the defaults of the digits run.

    Returns:
        A config that a file in configs/ changes and returns.
    """
    config = ConfigDict()
    config.experiment = "connect"
    config.seed = 0

    config.data = ConfigDict()
    config.data.name = "digits"  # see mcjax.data; "npz:FILE" for your own arrays
    config.data.dir = ""  # folder of the original archives or of TFDS; "" looks in the usual places
    config.data.verify = True  # check the archives' contents by checksum
    config.data.num_bonafide = 0  # clean images kept out of the endpoints' training set
    config.data.num_selection = 0  # images kept for choosing t
    config.data.protocol = (
        "disjoint"  # or "legacy": overlapping sets, as the official code has them
    )
    config.data.augmentation = "none"  # see mcjax.data.augmentation

    config.model = ConfigDict()
    config.model.name = "cnn"  # see mcjax.models
    config.model.options = ConfigDict()  # depth, width, ...: the network's own
    config.model.bfloat16 = False  # forward and backward passes in bfloat16: for accelerators

    config.endpoint = ConfigDict()  # training of the two ends, from seeds of their own
    config.endpoint.num_epochs = 40.0
    config.endpoint.batch_size = 64
    config.endpoint.learning_rate = 0.05
    config.endpoint.momentum = 0.9
    config.endpoint.nesterov = False
    config.endpoint.weight_decay = 5e-4

    config.curve = ConfigDict()
    config.curve.kind = "bezier"
    config.curve.num_bends = 1
    config.curve.init = "line"  # where the bends start: "line" or "random"
    config.curve.align = "none"  # "weights": the second end's channels in the first's order
    config.curve.fix_start = True
    config.curve.fix_end = True
    config.curve.images = "train"  # the images it is trained on: "train" or "bonafide"
    config.curve.num_strata = 1  # > 1: stratified t
    config.curve.num_epochs = 80.0
    config.curve.batch_size = 64
    config.curve.learning_rate = 0.05
    config.curve.momentum = 0.9
    config.curve.nesterov = False
    config.curve.weight_decay = 5e-4

    config.evaluation = ConfigDict()
    config.evaluation.num_points = 61
    config.evaluation.batch_size = 500
    config.evaluation.train_images = 0  # evaluate on that many training images; 0 is all
    config.evaluation.test_images = 0  # likewise
    config.evaluation.batch_stats = "train"  # images that BatchNorm is recomputed from at each t
    config.evaluation.batch_stats_images = 0  # the first so many of them; 0 is all
    config.evaluation.batch_stats_batch_size = 128
    config.evaluation.plane_points = 21  # along each side of the loss surface; 0 draws none
    config.evaluation.plane_images = 500  # test images a point of the surface

    config.run = ConfigDict()  # how it is carried out; results do not depend on it but for rounding
    config.run.log_every_steps = 100  # steps a line of metrics.jsonl, and a dispatch
    config.run.checkpoint_seconds = 60.0
    config.run.tensorboard = False  # metrics.jsonl as TensorBoard events too: mcjax[tensorboard]
    config.run.chunk = 0  # points vmapped together on a device; 0 is the device's default
    config.run.data_parallel = False  # all devices share each training batch: equal up to rounding
    config.run.side_by_side = (
        False  # several networks at once by vmap: small ones on an accelerator
    )
    config.run.cpu_convolution = True  # mcjax's faster convolutions on CPU
    return config


def backdoor() -> ConfigDict:
    """The fields of `experiment = "backdoor"`.

    Returns:
        A config that a file in configs/ changes and returns.
    """
    config = _repair_study()
    config.experiment = "backdoor"
    config.attack = ConfigDict()
    config.attack.trigger = "square"  # or "blended:alpha=0.1", ...: see mcjax.attacks.triggers
    config.attack.label_map = "single_target"  # or "all_to_all", "clean_label"
    config.attack.target = 1
    config.attack.fraction = 0.1  # of the training images (of the target class's: clean_label)
    config.attack.when = "before"  # the trigger is stamped before or "after" augmentation
    config.attack.attacker = "plain"  # "path_aware": trains a curve too, releases points of it
    config.attack.release = (0.25, 0.75)  # the points that a path-aware attacker releases
    config.attack.curve_epochs = 40.0  # of that attacker's curve
    return config


def injection() -> ConfigDict:
    """The fields of `experiment = "injection"`.

    Returns:
        A config that a file in configs/ changes and returns.
    """
    config = _repair_study()
    config.experiment = "injection"
    config.attack = ConfigDict()
    config.attack.method = "l0"  # or "l2", "gradient", "bit_flips"
    config.attack.num_faults = 4  # S, training images to be misclassified
    config.attack.num_images = 500  # T, with those that are to keep their class
    config.attack.layers = ()  # names of layers or tensors; () is all
    config.attack.confidence = 1.0  # by how much, in logits, a target is to win
    config.attack.strength = 1e-3  # of the norm, in units of the loss; less for many faults
    config.attack.rho = 1.0  # of ADMM
    config.attack.step_size = 0.1
    config.attack.num_steps = 500
    config.attack.num_flips = 40  # of bit_flips
    config.attack.stored_as = "int8"  # or "float32"
    return config


def _repair_study() -> ConfigDict:
    """What every experiment that tampers with networks and repairs them has."""
    config = connect()
    config.seeds = ()  # several in one run; () is config.seed alone
    config.data.num_bonafide = 400
    config.data.num_selection = 150

    config.curve = ConfigDict()  # the path's form; its training is config.repair's
    config.curve.kind = "bezier"
    config.curve.num_bends = 1
    config.curve.init = "line"
    config.curve.align = "none"
    config.curve.num_strata = 1

    config.repair = ConfigDict()  # the path and every baseline: same images, steps and batches
    config.repair.pair = "both_tampered"  # or "tampered_and_clean", "tampered_and_fine_tuned"
    config.repair.sizes = (400, 200, 100, 50)  # bonafide images
    config.repair.folds = 0  # k > 1: k-fold cross-validation, the held-out fold selects
    config.repair.methods = (
        "path",
        "line",
        "fine_tune",
        "scratch",
        "prune",
        "fine_prune",
        "i_bau",
        "noise",
    )
    config.repair.num_epochs = 40.0
    config.repair.steps_per_epoch = 25  # whatever the size; 0: as many as its images make
    config.repair.batch_size = 64
    config.repair.momentum = 0.9
    config.repair.nesterov = False
    config.repair.weight_decay = 5e-4
    config.repair.augmentation = "none"
    config.repair.learning_rate = ConfigDict()
    config.repair.learning_rate.path = 0.05
    config.repair.learning_rate.fine_tune = 0.02
    config.repair.learning_rate.scratch = 0.05
    config.repair.learning_rate.prune = 0.02
    config.repair.learning_rate.fine_prune = 0.02
    config.repair.tolerance = 0.02  # accuracy on the selection images that a repair may cost
    config.repair.fixed_t = (0.1, 0.5)  # reported beside the chosen t
    config.repair.num_draws = 20  # of noise on the weights
    config.repair.prune_fraction = 0.5  # of each layer's filters
    config.repair.i_bau = ConfigDict()  # see mcjax.repair.i_bau
    config.repair.i_bau.num_rounds = 100
    config.repair.i_bau.learning_rate = 3e-3
    config.repair.i_bau.eps = 3.0  # l2 norm of the universal perturbation, images in [0, 1]
    config.repair.i_bau.perturbed = 0.5
    config.repair.i_bau.num_fixed_point = 5

    config.explain = ConfigDict()  # the paper's explanations
    config.explain.num_images = 500  # test images of the gradients' similarity and the noise
    config.explain.num_draws = 5  # networks a strength of noise

    for name in ("train_images", "plane_points", "plane_images"):
        del config.evaluation[name]
    config.evaluation.batch_stats = "bonafide"
    return config


def evasion() -> ConfigDict:
    """The fields of `experiment = "evasion"`.

    Returns:
        A config that a file in configs/ changes and returns.
    """
    config = connect()
    config.experiment = "evasion"
    config.seeds = ()  # several in one run; () is config.seed alone
    config.pairs = ("regular-regular", "regular-adversarial", "adversarial-adversarial")
    for name in ("plane_points", "plane_images"):
        del config.evaluation[name]
    for name in ("fix_start", "fix_end", "images"):
        del config.curve[name]

    config.attack = ConfigDict()  # what the path is attacked with; eps in units of the images
    config.attack.norm = "linf"
    config.attack.eps = 0.1
    config.attack.step_size = 0.025
    config.attack.num_steps = 20

    config.adversarial = ConfigDict()  # the adversarial networks; num_epochs, ...: config.endpoint
    config.adversarial.method = "madry"  # or "fgsm", "trades"
    config.adversarial.eps = 0.1
    config.adversarial.step_size = 0.025
    config.adversarial.num_steps = 10
    config.adversarial.beta = 6.0  # of trades

    config.robust_path = ConfigDict()  # the path trained on worst cases, beside the plain one
    config.robust_path.pairs = ("regular-adversarial",)
    config.robust_path.num_steps = 10

    config.hessian = ConfigDict()
    config.hessian.method = "exact"  # or "lanczos", "power"; exact: piecewise-linear networks only

    config.evaluation.robust_images = 500  # test images attacked at each t, and looked at closer
    config.evaluation.robust_batch_size = 250
    config.evaluation.transfer_points = 11  # t's of the transfer matrix and of the ensemble
    config.evaluation.transfer_images = 250
    return config
