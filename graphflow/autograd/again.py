"""Second derivatives of compiled functions: their operations, once more, one by one.

The gradients of a compiled function are results of a program, which has no history.  With
``create_graph=True`` the function itself is run again instead, eagerly, on what it was given, and
differentiated as any eager code.  That is possible where running twice is as good as once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphflow import pytree
from graphflow.autograd.compiled import check_unchanged
from graphflow.autograd.modes import enable_grad
from graphflow.capture import Capture, Static
from graphflow.mode import operation_by_operation
from graphflow.signature import flat_arguments
from graphflow.tensor import Tensor


class Again:
    """One call of a compiled function, to be made again operation by operation."""

    def __init__(
        self,
        function: Callable[..., Any],
        captured: Capture,
        given: tuple[tuple[Any, ...], Mapping[str, Any]],
        leaves: Sequence[Any],
        targets: Sequence[Tensor],
        tells: bool,
    ) -> None:
        self._function, self._captured, self._tells = function, captured, tells
        self._given, self._leaves, self._targets = given, leaves, targets
        cells = [leaf._cell for leaf in leaves if isinstance(leaf, Tensor)]
        self._watched = [(cell, cell.version) for cell in (*captured.cells, *cells)]

    def __call__(self) -> tuple[list[Tensor], Sequence[Tensor]]:
        """The differentiable results with their histories, and what they depend on."""
        check_unchanged(self._watched)
        if self._tells:
            warnings.warn(
                f"create_graph=True: {self._captured.name} runs again operation by operation; call "
                "autograd.grad inside the compiled function to have it all in one program",
                stacklevel=2,
            )
        _, nest = flat_arguments(*self._given)
        plain = [leaf.value if isinstance(leaf, Static) else leaf for leaf in self._leaves]
        args, kwargs = pytree.unflatten(nest, plain)
        with enable_grad():
            results, _ = pytree.flatten(operation_by_operation(self._function)(*args, **kwargs))
        wanted = (r.differentiable is not None for r in self._captured.results)
        return [out for out, is_one in zip(results, wanted, strict=True) if is_one], self._targets
