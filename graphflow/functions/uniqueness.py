"""Distinct elements.  How many there are depends on values, so none of this compiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.cell import Cell
from graphflow.checks import need_tensor
from graphflow.device import beside_operands, put_in_place
from graphflow.errors import ShapeError
from graphflow.functions.picking import known, positions
from graphflow.functions.reductions import normal_dim

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = ["unique", "unique_consecutive"]
METHODS = tuple(__all__)


@beside_operands
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements in order, or the distinct entries of dimension ``dim``.

    ``return_inverse``: also where each element is among them; ``return_counts``: also
    how often each occurs.  No NaN equals another.
    """
    values, axis = _lines("unique", input, dim)
    found, inverse, counts = np.unique(
        values, return_inverse=True, return_counts=True, axis=axis, equal_nan=False
    )
    shape = values.shape if axis is None else (values.shape[axis],)
    return _chosen(found, inverse.reshape(shape), counts, return_inverse, return_counts)


@beside_operands
def unique_consecutive(
    input: Tensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The first element of every run of equal ones (or entry of dimension ``dim``).

    ``return_inverse``: also which run each element belongs to; ``return_counts``: also
    how long the runs are.
    """
    values, axis = _lines("unique_consecutive", input, dim)
    rows = values.reshape(-1, 1) if axis is None else np.moveaxis(values, axis, 0)
    begins = np.ones(rows.shape[0], np.bool_)
    begins[1:] = (rows[1:] != rows[:-1]).any(tuple(range(1, rows.ndim)))
    found = rows[begins]
    found = found.reshape(-1) if axis is None else np.moveaxis(found, 0, axis)
    inverse = np.cumsum(begins) - 1
    counts = np.diff(np.append(np.flatnonzero(begins), rows.shape[0]))
    inverse = inverse.reshape(values.shape) if axis is None else inverse
    return _chosen(found, inverse, counts, return_inverse, return_counts)


def _lines(name: str, input: Tensor, dim: int | None) -> tuple[np.ndarray[Any, Any], int | None]:
    values = known(name, need_tensor(name, input))
    if dim is None or not input.ndim:
        return values, None
    axis = normal_dim(dim, input.ndim)
    if values.size == 0 and values.shape[axis]:
        raise ShapeError(
            f"{name}: the entries of dimension {dim} have no elements: shape {list(values.shape)}"
        )
    return values, axis


def _chosen(
    found: np.ndarray[Any, Any],
    inverse: np.ndarray[Any, Any],
    counts: np.ndarray[Any, Any],
    with_inverse: bool,
    with_counts: bool,
) -> Any:
    from graphflow.tensor import Tensor

    results: list[Any] = [Tensor._of(Cell(put_in_place(np.ascontiguousarray(found))))]
    results += [positions(inverse)] if with_inverse else []
    results += [positions(counts)] if with_counts else []
    return results[0] if len(results) == 1 else tuple(results)
