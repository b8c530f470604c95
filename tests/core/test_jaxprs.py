"""Programs inside equations: all of them, and the same that JAX itself finds."""

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest
from jax import lax

from mcjax.core.jaxprs import inside

FUNCTIONS = {
    "cond": (lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x), 2),
    "switch": (lambda x: lax.switch(1, [jnp.sin, jnp.cos, jnp.tan], x), 3),
    "while": (lambda x: lax.while_loop(lambda x: x < 9, lambda x: 2 * x, x), 2),
    "scan": (lambda x: lax.scan(lambda c, _: (2 * c, c), x, None, length=3)[0], 1),
    "jit": (lambda x: jax.jit(jnp.sin)(x), 1),
    "sin": (jnp.sin, 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_program_is_found(name):
    fn, number = FUNCTIONS[name]
    equation = jax.make_jaxpr(fn)(1.0).eqns[-1]
    found = list(inside(equation))
    assert len(found) == number
    if hasattr(jax.extend.core, "jaxprs_in_params"):  # since JAX 0.10
        theirs = list(jax.extend.core.jaxprs_in_params(equation.params))
        assert [id(program) for program in found] == [id(program) for program in theirs]
