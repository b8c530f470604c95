"""D3: the kernel that moves, and the norm that it keeps."""

import numpy as np
import pytest
import tiny_case
from slow import SLOW

from mcjax.core.tree import by_name
from mcjax.repair.away import last_kernel
from mcjax.repair.methods import d3


@pytest.mark.parametrize(
    ("model", "options", "kernel"),
    [
        ("cnn", {"width": 2}, "fc2/kernel"),
        ("cnn", {"width": 2, "batch_norm": True}, "fc2/kernel"),
        pytest.param("resnet8", {"width": 2}, "fc/kernel", marks=SLOW),
        pytest.param("mlp", {"hidden": (4,) * 10}, "fc11/kernel", marks=SLOW),
    ],
)
def test_the_last_layer_keeps_its_norm_and_moves(model, options, kernel):
    case = tiny_case.case(model, num_steps=5, options={"learning_rate.d3": 0.5}, **options)
    assert last_kernel(case.network, case.suspect, case.images["image"]) == kernel
    found = d3.run(case)
    new, old = (np.asarray(by_name(v["params"])[kernel]) for v in (found, case.suspect))
    assert np.linalg.norm(new) == pytest.approx(np.linalg.norm(old), rel=1e-5)
    cosine = (new * old).sum() / np.linalg.norm(old) ** 2
    assert cosine < 0.5  # far from the suspect's, where it did not start
