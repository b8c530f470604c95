"""CLP: prunes the channels that may amplify their input far more than others; needs no data."""

import functools

import jax.numpy as jnp
import numpy as np

from mcjax.core.tree import PyTree, by_name
from mcjax.repair.methods.method import Case, Family, Method
from mcjax.repair.methods.pruning import (
    PrunedBelow,
    convolutions,
    normalisation_after,
    refuse_without_convolutions,
)

STRENGTHS = (5.0, 4.5, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0)
"""u, in standard deviations of a layer's channels: the smaller, the more channels are pruned."""

EPS = 1e-5  # of mcjax's BatchNorm


def lipschitz_constants(variables: PyTree, *, model_name: str = "") -> dict[str, np.ndarray]:
    """An upper bound on how much each channel of each convolution amplifies its input.

        sigma_k |gamma_k| / sqrt(var_k + 1e-5),    sigma_k = ||W_k||_2

    where W_k is the kernel of channel k as a matrix [inputs, height * width], ||.||_2 its largest
    singular value, and gamma and var are the scale and the running variance of the BatchNorm after
    the convolution; without one, the constant is sigma_k.

    Args:
        variables: {"params", "batch_stats"}; kernels [height, width, inputs, channels].
        model_name: One of `mcjax.models.names()`; determines the position of BatchNorm.

    Returns:
        One constant per channel, [channels], by layer path.

    Raises:
        UserError: The network has no convolution.

    Example:
        >>> kernel = np.array([3.0, 4.0]).reshape(1, 1, 2, 1)
        >>> lipschitz_constants({"params": {"conv": {"kernel": kernel}}})["conv"].tolist()
        [5.0]

    Source: Zheng et al. 2022, the Lipschitz constant of a channel with its BatchNorm.
    """
    params = by_name(variables["params"])
    stats = by_name(variables.get("batch_stats", {}))
    constants = {}
    for layer, kernel in convolutions(variables["params"]).items():
        height, width, inputs, channels = kernel.shape
        w = np.asarray(kernel, np.float64).transpose(3, 2, 0, 1)
        w = w.reshape(channels, inputs, height * width)
        found = np.linalg.norm(w, ord=2, axis=(1, 2))
        if norm := normalisation_of(variables["params"], layer, model_name):
            scale, var = (
                np.asarray(v, np.float64) for v in (params[f"{norm}/scale"], stats[f"{norm}/var"])
            )
            found = found * np.abs(scale) / np.sqrt(var + EPS)
        constants[layer] = found
    return constants


def normalisation_of(params: PyTree, layer: str, model_name: str = "") -> str:
    """The path of the BatchNorm after a convolution; "" if there is none.

    Example:
        >>> normalisation_of({"conv1": {"kernel": 0}, "bn1": {"scale": 0}}, "conv1")
        'bn1'
    """
    names = by_name(params)
    near = (normalisation_after(layer, model_name), f"{layer}_bn")
    return next((name for name in near if f"{name}/scale" in names), "")


def outliers(constants: np.ndarray) -> np.ndarray:
    """How many standard deviations each constant is above the mean of its layer.

    Example:
        >>> outliers(np.array([1.0, 1.0, 4.0]))
        array([-0.70710678, -0.70710678,  1.41421356])
    """
    std = constants.std()
    return (constants - constants.mean()) / (std if std > 0 else 1.0)


def run(case: Case) -> Family:
    """The suspect of a case, pruned at every u of `STRENGTHS`.

    At u, channels whose constant is above mean + u std of their layer are zeroed, with the BatchNorm
    after them. No image is used: the choice of u is all that the selection images do.

    Source: Zheng et al. 2022, "Data-free backdoor removal based on channel Lipschitzness".
    """
    scores = {}
    for layer, found in lipschitz_constants(case.suspect, model_name=case.model_name).items():
        score = jnp.asarray(-outliers(found), jnp.float32)
        scores[layer] = score
        if norm := normalisation_of(case.suspect["params"], layer, case.model_name):
            scores[norm] = score
    below = -jnp.asarray(STRENGTHS, jnp.float32)
    return Family("u", STRENGTHS, PrunedBelow(case.suspect, scores, below))


METHOD = Method(
    run=run,
    kind="family",
    uses_images=False,
    num_networks=lambda plan: len(STRENGTHS),
    check=functools.partial(refuse_without_convolutions, "clp"),
)
