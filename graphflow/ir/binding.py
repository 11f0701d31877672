"""Arguments meet the types of leaves: dtypes and shapes checked, symbols given their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.dims import Dim, SymDim, evaluate_dim
from graphflow.ir.node import Node
from graphflow.ir.types import DType, TensorType

Sizes: TypeAlias = dict[str, int]


def bind_sizes(
    bound: Sequence[tuple[Node, np.ndarray[Any, Any], DType]], known: Mapping[str, int]
) -> Sizes:
    """The size of every symbol, from leaves and the arrays they are bound to.

    A symbol takes its size where it stands alone (``batch``); every other extent
    (``2*batch+1``) must then agree.  The third item of each entry is a dtype that
    is accepted beside the leaf's own.  ``known`` are sizes that hold already (those
    of the graph around a region).  Raises Shape/DTypeError naming the leaf.
    """
    for node, array, other in bound:
        if array.dtype not in (node.dtype.numpy, other.numpy):
            raise DTypeError(f"{described(node)} got an array of {array.dtype}")
    return solve_sizes([(node, array.shape) for node, array, _ in bound], known)


def solve_sizes(bound: Sequence[tuple[Node, Sequence[int]]], known: Mapping[str, int]) -> Sizes:
    """:func:`bind_sizes` from leaves and shapes."""
    sizes: Sizes = dict(known)
    for node, shape in bound:
        if len(shape) != len(node.shape):
            _refuse(node, shape, f"{len(node.shape)} dimensions")
        for dim, size in zip(node.shape, shape):
            name = lone_symbol(dim)
            if name is not None and sizes.setdefault(name, size) != size:
                _refuse(node, shape, f"'{name}' = {sizes[name]}, as before")
    for node, shape in bound:
        wanted = [evaluate_dim(dim, sizes) for dim in node.shape]
        if list(shape) != wanted:
            _refuse(node, shape, f"shape {wanted}")
    return sizes


def lone_symbol(dim: Dim) -> str | None:
    """The symbol that ``dim`` consists of, if it is just one."""
    if isinstance(dim, SymDim) and len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
            return monomial[0]
    return None


def described(node: Node) -> str:
    """A leaf as errors speak of it."""
    return f"{node.op.name} {node.attrs['name']!r} of type {node.type}"


def _refuse(node: Node, shape: Sequence[int], wanted: str) -> NoReturn:
    raise ShapeError(f"{described(node)} got shape {list(shape)}, expected {wanted}")


def type_at(type: TensorType, sizes: Mapping[str, int]) -> TensorType:
    """``type`` with the sizes of its symbolic dimensions put in."""
    if type.is_static:
        return type
    return TensorType(type.dtype, tuple(evaluate_dim(d, sizes) for d in type.shape))
