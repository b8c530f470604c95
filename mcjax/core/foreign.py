"""Recognises PyTorch modules where a network in JAX is expected, without importing PyTorch."""

from typing import Any

from mcjax.core.errors import UserError


def refuse_torch(name: str, value: Any) -> None:
    """Refuses a `torch.nn.Module`, which would otherwise fail far away from the mistake.

    A module is callable and has an `apply`, so it passes for a forward pass.

    Args:
        name: What messages call the value.
        value: Anything.

    Raises:
        UserError: The value is a PyTorch module, a class of modules, or an exported program.

    Example:
        >>> refuse_torch("network", lambda variables, x: x)
    """
    kind = value if isinstance(value, type) else type(value)
    bases = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in kind.__mro__}
    if "torch.Module" in bases:
        what = f"a torch.nn.Module ({kind.__name__})"
    elif "torch.ExportedProgram" in bases:
        what = "a program of torch.export"
    else:
        return
    raise UserError(
        f"{name} is {what}, but mcjax computes in JAX; convert it: network, variables = "
        "mcjax.from_torch(module, example_images)"
    )
