"""Second derivatives of compiled functions: their operations, once more, one by one.

The gradients of a compiled function are results of a program, which has no history.  With
``create_graph=True`` the function itself is run again instead, eagerly, on what it was given, and
differentiated as any eager code.  That is possible where running twice is as good as once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from graphflow import pytree
from graphflow.autograd.compiled import Given
from graphflow.autograd.modes import enable_grad
from graphflow.capture import Capture
from graphflow.mode import operation_by_operation
from graphflow.signature import flat_arguments
from graphflow.specs import Static
from graphflow.tensor import Tensor


def run_again(
    function: Callable[..., Any], captured: Capture, tells: bool, given: Given,
    leaves: Sequence[Any],
) -> list[Tensor]:  # fmt: skip
    """The differentiable results of a compiled function's call, with the histories of its
    operations; ``leaves`` are those of what it was ``given``.  Warns if it ``tells``."""
    if tells:
        warnings.warn(
            f"create_graph=True: {captured.name} runs again operation by operation; call "
            "autograd.grad inside the compiled function to have it all in one program",
            stacklevel=2,
        )
    _, nest = flat_arguments(*given)
    plain = [leaf.value if isinstance(leaf, Static) else leaf for leaf in leaves]
    args, kwargs = pytree.unflatten(nest, plain)
    with enable_grad():
        results, _ = pytree.flatten(operation_by_operation(function)(*args, **kwargs))
    wanted = (r.differentiable is not None for r in captured.results)
    return [out for out, is_one in zip(results, wanted, strict=True) if is_one]
