"""Put a program's outputs back into what the traced function returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow import pytree
from graphflow.capture import Capture, Result
from graphflow.cell import Cell
from graphflow.dispatch import apply_view
from graphflow.tensor import Tensor


def rebuild(
    capture: Capture, outputs: Sequence[Cell], leaves: list[Any]
) -> tuple[Any, list[Tensor]]:
    """The nest the function returns, and the results whose history is still wanted.

    Aliases of arguments and outer tensors stay aliases.
    """
    made = [_leaf(result, outputs, leaves) for result in capture.results]
    live = [m for m, r in zip(made, capture.results) if r.differentiable is not None]
    return pytree.unflatten(capture.structure, made), live


def _leaf(result: Result, outputs: Sequence[Cell], leaves: list[Any]) -> Any:
    kind = result.kind
    if kind == "new":
        return Tensor._of(outputs[result.index], result.chain)
    if kind == "argument":
        return leaves[result.index]
    if kind == "argument view":
        source = leaves[result.index]
        if not result.value:
            return Tensor._of(source._cell, (*source._chain, *result.chain))
        for step in result.chain:  # with its history, which is that of the views
            source = apply_view(step.op, source, **step.attrs)
        return source
    if kind == "argument memory":
        return Tensor._of(leaves[result.index]._cell, result.chain)
    if kind == "view":
        return Tensor._of(result.value, result.chain)
    if kind == "number":
        return outputs[result.index].value.item()
    return result.value
