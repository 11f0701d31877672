"""Reading at computed positions: ``gather``, ``take``, ``index_select``, masks, ``nonzero``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.cell import Cell
from graphflow.checks import need_index, need_tensor
from graphflow.device import beside_operands, put_in_place
from graphflow.dispatch import apply
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.functions.reductions import normal_dim
from graphflow.functions.shaping import broadcast_to, narrow, reshape
from graphflow.ir import types as T
from graphflow.ir.build import constant
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, topological
from graphflow.ir.op import Kind
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "argwhere", "gather", "index_select", "masked_select", "nonzero", "take", "take_along_dim",
]  # fmt: skip
METHODS = tuple(__all__)


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` for ``dim`` 0, and so on."""
    axis = normal_dim(dim, need_tensor("gather", input).ndim)
    part, places = along_axis("gather", input, index, axis)
    return reshape(apply("gather", part, places, axis=axis), tuple(index.shape))


def along_axis(name: str, input: Tensor, index: Any, axis: int) -> tuple[Tensor, Tensor]:
    """What ``index`` reads of ``input`` along ``axis``, and the index: 1-d at least, int64.

    Where the index is smaller in another axis, only that much of the input is looked at.
    """
    need_index(name, need_tensor(name, index, "index"))
    if index.numel() == 0 and index.ndim != input.ndim:
        index = reshape(index, (0,) * max(input.ndim, 1))  # nothing is read: any rank will do
    part = input if input.ndim else reshape(input, 1)
    places = index if index.ndim else reshape(index, 1)
    if places.ndim != part.ndim:
        raise ShapeError(
            f"{name}: the index has {index.ndim} dimensions, the input {input.ndim}; "
            "they must have the same number"
        )
    for d in range(part.ndim):
        if d != axis and places.shape[d] != part.shape[d]:
            if places.shape[d] > part.shape[d]:
                raise ShapeError(
                    f"{name}: the index of shape {list(index.shape)} is larger than the input of "
                    f"shape {list(input.shape)} apart from dimension {axis}"
                )
            part = narrow(part, d, 0, places.shape[d])
    return part, cast(places, T.int64)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of dimension ``dim`` that the 1-d ``index`` names."""
    axis = normal_dim(dim, need_tensor("index_select", input).ndim)
    places = vector_of("index_select", index)
    if not input.ndim:
        return reshape(apply("take", reshape(input, 1), places, axis=0), ())
    return apply("take", input, places, axis=axis)


def vector_of(name: str, index: Any) -> Tensor:
    """A 1-d int64 tensor of positions (of one, if ``index`` has no dimension)."""
    need_index(name, need_tensor(name, index, "index"))
    if index.ndim > 1:
        raise ShapeError(f"{name}: the index must have 1 dimension, not {index.ndim}")
    return cast(index if index.ndim else reshape(index, 1), T.int64)


def from_the_front(picks: Tensor, extent: int) -> Tensor:
    """Positions with negative ones counted from the end, as int64."""
    number = cast(picks, T.int64)
    if mode.tracer is None and (not number.numel() or number._host().min() >= 0):
        return number
    negative = apply("lt", number, as_operand(0, T.int64))
    return apply("where", negative, apply("add", number, as_operand(extent, T.int64)), number)


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions ``index`` of the input as one dimension; its shape is the index's.

    Negative positions count from the end.
    """
    need_index("take", need_tensor("take", index, "index"))
    flat = reshape(need_tensor("take", input), -1)
    return apply("take", flat, from_the_front(index, flat.shape[0]), axis=0)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """:func:`gather` with input and indices broadcast together apart from ``dim``.

    Without ``dim``, both are taken as one dimension.
    """
    need_index("take_along_dim", need_tensor("take_along_dim", indices, "indices"))
    if dim is None:
        return take(input, reshape(indices, -1))
    if indices.ndim != input.ndim:
        raise ShapeError(
            f"take_along_dim: input and indices must have as many dimensions, got {input.ndim} "
            f"and {indices.ndim}"
        )
    axis = normal_dim(dim, input.ndim)
    places = from_the_front(indices, input.shape[axis] if input.ndim else 1)
    if not input.ndim:
        return gather(input, 0, places)
    others = [(*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in (input, indices)]
    common: Any = broadcast_shapes(*others)
    both = [
        broadcast_to(x, (*common[:axis], x.shape[axis], *common[axis + 1 :]))
        for x in (input, places)
    ]
    return apply("gather", *both, axis=axis)


@beside_operands
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where ``mask`` holds, in one dimension (input and mask broadcast together).

    How many there are is not known before the values are: in a compiled function this is
    an error that says what to use instead.
    """
    if need_tensor("masked_select", mask, "mask").dtype is not T.bool_:
        raise DTypeError(f"masked_select: the mask must be bool, not {mask.dtype.name}")
    chosen = known("masked_select", mask)
    shape: Any = broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    places = np.flatnonzero(np.broadcast_to(chosen, shape))
    flat = reshape(broadcast_to(input, shape), -1)
    return apply("take", flat, positions(places), axis=0)


def known(name: str, tensor: Tensor) -> np.ndarray[Any, Any]:
    """The values, where the size of a result depends on them; in a trace those of constants."""
    if mode.tracer is None:
        return tensor._host()
    found = _of_constants(mode.tracer.node(tensor))
    if found is None:
        raise TraceError(
            f"{name} needs the values of a tensor of type {tensor._type}: the size of its result "
            "depends on them, and a compiled function has fixed sizes; gf.where keeps the size, "
            "x[mask] = value assigns where a mask holds, and a mask made in the function of gf.eye "
            "or gf.arange is known"
        )
    return found


def _of_constants(node: Node) -> np.ndarray[Any, Any] | None:
    """The values of a node that is made of nothing else than constants and positions."""
    for one in topological([node]):
        leaf = one.op.kind is Kind.LEAF and one.op.name != "constant"
        sized = isinstance(one.type, T.TensorType) and one.type.is_static
        if leaf or not sized or not one.op.pure or one.op.kind in (Kind.CONTROL, Kind.OPAQUE):
            return None
    from graphflow.ir.interp import interpret  # masks made of constants are rare

    return interpret(Graph(inputs=(), outputs=(node,)), ()).outputs[0]


def positions(values: np.ndarray[Any, Any]) -> Tensor:
    """A tensor of positions that NumPy found; in a trace a constant."""
    from graphflow.tensor import Tensor

    if mode.tracer is not None:
        return Tensor._of(Cell(constant(np.asarray(values, np.int64)), mode.tracer))
    return Tensor._of(Cell(put_in_place(np.asarray(values, np.int64))))


@beside_operands
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Where elements are not 0: a row an element, or with ``as_tuple`` a vector a dimension."""
    values = known("nonzero", need_tensor("nonzero", input))
    if as_tuple:
        found = np.nonzero(values if values.ndim else values.reshape(1))
        return tuple(positions(places) for places in found)
    return positions(np.argwhere(values))


def argwhere(input: Tensor) -> Tensor:
    """Where elements are not 0, a row an element."""
    return nonzero(input)  # type: ignore[no-any-return]
