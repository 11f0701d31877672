"""Build nodes: type inference and interning, and operators on nodes.

``NODES.mul(x, y)`` infers the type, interns and returns the node.  Importing
this module gives :class:`Node` its arithmetic operators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.node import (
    ArrayValue,
    Form,
    Node,
    attrs_key,
    form_of,
    make_node,
    value_key,
    with_form,
)
from graphflow.ir.op import OpDef, lookup
from graphflow.ir.types import DType, TensorType, TupleType, Type

Scalar: TypeAlias = bool | int | float


_inferred: dict[tuple[Any, ...], Form] = {}
"""The forms of what has been emitted, by operation, key of attributes and types of operands."""
_MOST = 1 << 14
"""Forms that are kept for what may never be emitted again."""


def emit(op: OpDef | str, *inputs: Node, **attrs: Any) -> Node:
    """The node ``op(*inputs, **attrs)``, its type inferred from the record."""
    record = lookup(op) if isinstance(op, str) else op
    own = attrs_key(attrs)
    types = [n.type for n in inputs]
    key = (record, own, *types)
    form = _inferred.get(key)
    if form is None:
        form = form_of(record, types, attrs, own, infer_type(record, inputs, attrs))
        if all(map(_is_static, (form.type, *types))):  # what is symbolic depends on more
            if len(_inferred) >= _MOST:
                _inferred.clear()
            _inferred[key] = form
    return with_form(form, inputs, attrs)


def _is_static(type: Type) -> bool:
    return isinstance(type, TensorType) and type.is_static


def infer_type(op: OpDef, inputs: tuple[Node, ...], attrs: dict[str, Any]) -> Type:
    """The result type by ``op``'s rule."""
    return op.infer([n.type for n in inputs], attrs)  # type: ignore[misc]


def constant(value: Any, dtype: DType | None = None) -> Node:
    """A constant node from anything NumPy takes."""
    kind = value.__class__
    if kind is float or kind is int or kind is bool:
        data = _number(value_key(value), value, dtype)
    else:
        data = ArrayValue(np.asarray(value, dtype.numpy if dtype is not None else None))
    return make_node(lookup("constant"), (), {"value": data}, data.type)


@lru_cache(maxsize=1024)
def _number(key: Any, value: Scalar, dtype: DType | None) -> ArrayValue:
    """The data of a Python number; ``key`` tells apart what ``==`` merges."""
    return ArrayValue(np.asarray(value, dtype.numpy if dtype is not None else None))


def splat(value: Scalar, type: TensorType) -> Node:
    """A tensor of ``type`` filled with ``value``: ``expand`` of a 0-d constant."""
    scalar = constant(value, type.dtype)
    return scalar if type.rank == 0 else emit("expand", scalar, shape=type.shape)


def input_node(name: str, type: TensorType) -> Node:
    """The graph input called ``name``."""
    return make_node(lookup("input"), (), {"name": name}, type)


def state_node(name: str, type: TensorType) -> Node:
    """The state (parameter, buffer, optimiser slot, RNG) called ``name``."""
    return make_node(lookup("state"), (), {"name": name}, type)


class NodeBuilder:
    """The :class:`graphflow.ir.op.Builder` over graph nodes."""

    def emit(self, op: str, *inputs: Any, **attrs: Any) -> Node:
        """Emit ``op``; Python scalars become 0-d constants of the first node's dtype."""
        return emit(op, *_lift(inputs), **attrs)

    def several(self, op: str, *inputs: Any, **attrs: Any) -> tuple[Node, ...]:
        """The results of ``op``, taken out of the node with all of them."""
        whole = self.emit(op, *inputs, **attrs)
        assert isinstance(whole.type, TupleType)
        return tuple(emit("get", whole, index=i) for i in range(len(whole.type.items)))

    def __getattr__(self, op: str) -> Callable[..., Any]:
        if op.startswith("_"):
            raise AttributeError(op)
        made = self.__dict__[op] = partial(self.emit, op)
        return made


def _lift(inputs: tuple[Any, ...]) -> tuple[Node, ...]:
    if all(isinstance(x, Node) for x in inputs):
        return inputs
    like = next((x for x in inputs if isinstance(x, Node)), None)
    if like is None:
        raise GraphError("an operation needs at least one node among its operands")
    return tuple(x if isinstance(x, Node) else constant(x, like.dtype) for x in inputs)


NODES = NodeBuilder()


def _operator(op: str, reflected: bool = False) -> Callable[[Node, Any], Node]:
    def method(self: Node, other: Any) -> Node:
        return NODES.emit(op, other, self) if reflected else NODES.emit(op, self, other)

    return method


for _symbol, _op in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div")):
    setattr(Node, f"__{_symbol}__", _operator(_op))
    setattr(Node, f"__r{_symbol}__", _operator(_op, reflected=True))
_UNARY: dict[str, Callable[[Node], Node]] = {"__neg__": lambda self: NODES.emit("neg", self)}
for _name, _method in _UNARY.items():
    setattr(Node, _name, _method)
