"""The primitive operations as functions of tensors: ``primitives.permute(x, axes=(1, 0))``.

What :meth:`Graph.to_python` writes is written in these, so that tracing it gives the very
same nodes.  Attributes are those of the operation's record (``graphflow/ir/ops``), there is
no promotion, and an operation with several results returns them as a tuple.  They run
eagerly and in traces like everything else, and have gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from graphflow.cell import Cell
from graphflow.dispatch import apply, apply_several, assign, literal
from graphflow.errors import GraphError
from graphflow.ir.graph import Graph
from graphflow.ir.literals import decode
from graphflow.ir.op import Kind, OpDef, lookup
from graphflow.ir.parser import read_array, read_type, read_value
from graphflow.ir.tokens import Line
from graphflow.ir.types import TensorType, TupleType
from graphflow.mode import mode
from graphflow.specs import TensorSpec
from graphflow.tensor import Tensor


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        op = lookup(name)
    except GraphError as error:
        raise AttributeError(str(error)) from None
    return partial(call, op)


def call(op: OpDef | str, *inputs: Tensor, **attrs: Any) -> Any:
    """The result (or results) of the primitive ``op`` on tensors."""
    record = lookup(op) if isinstance(op, str) else op
    if record.kind in (Kind.CONTROL, Kind.OPAQUE):  # only these have several results
        types = [t._type for t in inputs]
        if isinstance(record.infer(types, attrs), TupleType):
            return apply_several(record, *inputs, **attrs)
    return apply(record, *inputs, **attrs)


# ---- values, spelled as in the IR's text ------------------------------------------------


def constant(type: str, elements: str) -> Tensor:
    """A constant from its type and its elements: ``constant("f32[2]", "[0.5, nan]")``."""
    return literal(read_array(elements, _tensor_type(type)).array)


def data(type: str, base64: str) -> Tensor:
    """A constant from its type and its bytes (little-endian, C order) in base64."""
    return literal(decode(base64.split(), _tensor_type(type)).array)


def value(text: str) -> Any:
    """An attribute from its spelling: ``value("dim<2*batch>")``."""
    return read_value(Line(text, 1))


def region(text: str) -> Graph:
    """A region from its text."""
    return Graph.parse(text)


class _Spec(TensorSpec):
    """A spec whose extents may be any polynomials of symbols."""

    def __post_init__(self) -> None:
        pass

    @property
    def type(self) -> TensorType:
        """The IR type."""
        dims: tuple[Any, ...] = tuple(self.shape)
        return TensorType(self.dtype, dims)


def spec(name: str, type: str) -> TensorSpec:
    """What ``gf.trace`` takes for an input of this name and type."""
    found = _tensor_type(type)
    return _Spec(found.shape, found.dtype, name=name)  # type: ignore[arg-type]


# ---- state -------------------------------------------------------------------------------


class State:
    """Tensors by name, zeros at first, that a trace captures as state of these names.

    ``types`` are their types: ``State({"fc.weight": "f32[10,128]"})``.  ``tensors`` has them,
    to be given values.
    """

    __slots__ = ("tensors",)

    def __init__(self, types: Mapping[str, str]) -> None:
        self.tensors: dict[str, Tensor] = {}
        for name, text in types.items():
            type = _tensor_type(text)
            made: Tensor = Tensor._of(Cell(np.zeros(type.static_shape, type.dtype.numpy)))
            made.name = name
            self.tensors[name] = made

    def read(self) -> list[Tensor]:
        """The values that the tensors have now, whatever is written to them later."""
        return [fresh(tensor) for tensor in self.tensors.values()]

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Give tensors new values, by name."""
        for name, new in values.items():
            assign(self.tensors[name], new)


def fresh(tensor: Tensor) -> Tensor:
    """A tensor of its own with the value that ``tensor`` has now."""
    if mode.tracer is None:
        return Tensor._of(Cell(np.array(tensor._eager())))
    return Tensor._of(Cell(mode.tracer.node(tensor), mode.tracer))


def results(tensors: Iterable[Tensor]) -> Any:
    """What a function returns: one tensor or a tuple, each with memory of its own."""
    found = tuple(map(fresh, tensors))
    return found[0] if len(found) == 1 else found


def _tensor_type(text: str) -> TensorType:
    found = read_type(text)
    if not isinstance(found, TensorType):
        raise GraphError(f"{text} is no type of a tensor")
    return found
