"""Sequences: lists of values, known in length when the model is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.onnx.operators.table import gf, ints, number, operator


@operator("SequenceEmpty", folds=False)
def empty(*, dtype: int = 1) -> Any:
    """A sequence of nothing."""
    return []


@operator("SequenceConstruct", raw=True, folds=False)
def construct(*inputs: Any) -> Any:
    """A sequence of the operands."""
    return list(inputs)


def _position(position: Any, length: int) -> int:
    where = int(number(position))
    if not -length <= where < length:
        raise GraphError(f"position {where} is outside a sequence of {length}")
    return where % length


@operator("SequenceAt", raw=True, known=("position",), folds=False)
def at(input_sequence: list[Any], position: Any) -> Any:
    """The item at a position."""
    return input_sequence[_position(position, len(input_sequence))]


@operator("SequenceInsert", raw=True, known=("position",), folds=False)
def insert(input_sequence: list[Any], tensor: Any, position: Any = None) -> Any:
    """The sequence with an item more (at its end, if no position is given)."""
    made, length = list(input_sequence), len(input_sequence)
    where = length if position is None else int(number(position))
    made.insert(where + length if where < 0 else where, tensor)
    return made


@operator("SequenceErase", raw=True, known=("position",), folds=False)
def erase(input_sequence: list[Any], position: Any = None) -> Any:
    """The sequence without an item (the last, if no position is given)."""
    made = list(input_sequence)
    del made[len(made) - 1 if position is None else _position(position, len(made))]
    return made


@operator("SequenceLength", raw=True, folds=False)
def length(input_sequence: list[Any]) -> Any:
    """The number of items."""
    return np.array(len(input_sequence), np.int64)


@operator("ConcatFromSequence")
def concat_from_sequence(input_sequence: list[Any], *, axis: int, new_axis: int = 0) -> Any:
    """The items joined along an axis, which is new on request."""
    return gf.stack(input_sequence, axis) if new_axis else gf.cat(input_sequence, axis)


@operator("SplitToSequence", known=("split",))
def split_to_sequence(input: Any, split: Any = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    """Parts along an axis as a sequence: of these sizes, or single slices."""
    if split is None:
        parts = list(gf.split(input, 1, axis))
        return parts if keepdims else [gf.squeeze(p, axis) for p in parts]
    sizes = ints(split)
    return list(gf.split(input, sizes[0] if split.ndim == 0 else list(sizes), axis))


@operator("Optional", raw=True, folds=False)
def optional(input: Any = None, *, type: Any = None) -> Any:
    """The operand, or nothing."""
    return input


@operator("OptionalHasElement", raw=True, folds=False)
def has_element(input: Any = None) -> Any:
    """Whether there is something."""
    return np.array(input is not None)


@operator("OptionalGetElement", raw=True, folds=False)
def get_element(input: Any) -> Any:
    """What there is."""
    if input is None:
        raise GraphError("there is no element to take")
    return input
