"""A PyTorch module where a network in JAX is expected is named, wherever it is given."""

import jax
import numpy as np
import pytest

import mcjax
from mcjax.alignment import permutation_spec
from mcjax.core.errors import UserError
from mcjax.core.foreign import refuse_torch
from mcjax.curvature import weight_hessian_eigenvalue
from mcjax.evaluation.autoattack_metrics import autoattack_metrics
from mcjax.evaluation.robust_metrics import robust_metrics
from mcjax.models.network import from_apply

KEY = jax.random.key(0)
X, Y = np.zeros((2, 4, 4, 1), np.float32), np.zeros(2, np.int32)
IMAGES = {"image": X, "label": Y}
W = {"w": np.zeros(1)}


@pytest.fixture(scope="module")
def module():
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10))


USES = {
    "repair_model": lambda net: mcjax.repair_model(KEY, net, W, IMAGES),
    "repair_model of a suspect": lambda net: mcjax.repair_model(KEY, lambda w, x: x, net, IMAGES),
    "connect": lambda net: mcjax.connect(KEY, net, W, W, IMAGES),
    "train_network": lambda net: mcjax.train_network(KEY, net, IMAGES),
    "evaluate_path": lambda net: mcjax.evaluate_path(net, lambda t: W, [0.5], IMAGES),
    "evaluate_path of a curve": lambda net: mcjax.evaluate_path(lambda w, b: b, net, [0.5], IMAGES),
    "classification_metrics": mcjax.classification_metrics,
    "from_linen": lambda net: mcjax.from_linen(net, (4, 4, 1)),
    "from_linen of a class": lambda net: mcjax.from_linen(type(net), (4, 4, 1)),
    "from_apply": from_apply,
    "Bezier": lambda net: mcjax.Bezier.connect(net, net),
    "pgd": lambda net: mcjax.pgd(KEY, net, X, Y),
    "autoattack": lambda net: mcjax.autoattack(KEY, net, X, Y),
    "input_hessian_eigenvalue": lambda net: mcjax.input_hessian_eigenvalue(net, X, Y),
    "weight_hessian_eigenvalue": lambda net: weight_hessian_eigenvalue(net, W),
    "permutation_spec": lambda net: permutation_spec(net, W, (4, 4, 1)),
    "robust_metrics": lambda net: robust_metrics(net, seed=0, eps=0.1, step_size=0.1, num_steps=1),
    "autoattack_metrics": lambda net: autoattack_metrics(
        net, seed=0, eps=0.1, pgd_step_size=0.1, pgd_num_steps=1
    ),
}


@pytest.mark.parametrize("name", USES)
def test_a_module_is_named_with_the_way_out(name, module):
    with pytest.raises(
        UserError, match=r"is a torch.nn.Module \(Sequential\).*from_torch"
    ) as error:
        USES[name](module)
    assert "\n" not in str(error.value)


def test_other_values_pass():
    refuse_torch("network", mcjax.UserError)
    refuse_torch("network", None)


def test_from_linen_of_a_function_says_what_to_use():
    with pytest.raises(UserError, match="give a linen module, or use from_apply"):
        mcjax.from_linen(lambda w, x: x, (4, 4, 1))
