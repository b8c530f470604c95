"""Repairs two networks with injected errors on the real Fashion-MNIST along the path between them.

    python -m mcjax.train --config configs/injection_fashion.py
    python -m mcjax.train --config configs/injection_fashion.py --config.attack.num_faults=16 --config.attack.strength=1e-4

Cost: 36 minutes per seed on two CPU cores with other runs on them; the attack alone 2 to 3 minutes per network.
Score: injection success 1 before and 0 after; clean accuracy 0.866 with 1,000 images, the suspect's is 0.876. More in
docs/results/injection.md.

Needs the original files: Debian's package dataset-fashion-mnist, or --config.data.dir=FOLDER.
"""

from mcjax.runs import config as base


def get_config(arg=None):
    config = base.injection()
    config.data.name = "fashion_mnist"
    config.data.num_bonafide = 2500
    config.data.num_selection = 5000
    config.model.options.width = 16
    config.endpoint.num_epochs = 3.0
    config.endpoint.batch_size = 128
    config.attack.num_images = 1000
    config.repair.sizes = (2500, 1000, 500, 250, 50)
    config.repair.num_epochs = 10.0  # errors hidden in few weights are gone long before
    config.repair.steps_per_epoch = 79
    config.repair.tolerance = 0.02
    config.repair.i_bau.num_rounds = (
        10  # as in backdoor_fashion; 100 rounds take 15 minutes per size
    )
    config.repair.i_bau.learning_rate = 1e-3
    config.repair.i_bau.eps = 5.0
    config.repair.i_bau.perturbed = 0.2
    config.repair.i_bau.num_fixed_point = 1
    config.evaluation.num_points = 21
    config.evaluation.batch_size = 1000
    return base.variant(config, arg)
