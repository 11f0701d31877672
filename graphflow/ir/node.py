"""Immutable, interned nodes.

``Node(op, inputs, attrs, type)`` is built by :func:`make_node` only, which
returns the *same object* for the same operation on the same inputs: equality
is identity, and pure duplicates never exist.  Names and source locations are
not part of a node; they live beside it, in :class:`graphflow.ir.graph.Graph`.

Attributes are plain values: ``bool int float str None``, dtypes, types,
tuples of those, :class:`ArrayValue` (a constant's data) and closed graphs
(regions).  They are keyed by type *and* bit pattern, because a Python dict
would merge ``0.0`` with ``-0.0`` and ``1`` with ``True``.
"""

from __future__ import annotations

import itertools
import struct
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphflow.digests import new_digest
from graphflow.ir.types import DType, TensorType, TupleType, Type, from_numpy_dtype

if TYPE_CHECKING:
    from graphflow.ir.op import OpDef

Attrs: TypeAlias = Mapping[str, Any]


class ArrayValue:
    """The data of a ``constant``: a read-only array compared by its bytes."""

    __slots__ = ("__weakref__", "array", "digest")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        array = np.array(array, order="C", copy=True)
        array.setflags(write=False)
        self.array = array
        header = f"{from_numpy_dtype(array.dtype).short}{array.shape}".encode()
        self.digest = new_digest(header + array.tobytes()).hexdigest()[:16]

    @property
    def type(self) -> TensorType:
        """The tensor type of the data."""
        return TensorType(from_numpy_dtype(self.array.dtype), self.array.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayValue) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"const<{self.digest}>"


class Node:
    """One operation and its result.  ``node.attrs[name]`` reads an attribute.

    Arithmetic operators build further nodes, so gradient rules and
    decompositions read as formulas (see :mod:`graphflow.ir.build`).
    """

    __slots__ = (
        "__weakref__", "attrs", "attrs_key", "dtype", "inputs", "op", "serial", "shape", "type",
    )  # fmt: skip

    op: OpDef
    inputs: tuple[Node, ...]
    attrs: Attrs
    attrs_key: tuple[Any, ...]
    """:func:`attrs_key` of the attributes."""
    type: Type
    serial: int
    """Creation order; inputs always have smaller serials than their users."""
    shape: tuple[Any, ...]
    """Shape of a tensor-valued node."""
    dtype: DType
    """Element type of a tensor-valued node."""

    @property
    def tensor_type(self) -> TensorType:
        """The type, known to be a tensor's."""
        type = self.type
        if type.__class__ is TensorType:
            return type
        raise TypeError(f"{self.op.name} yields {type}, not a tensor")

    def __getattr__(self, name: str) -> Any:
        """Raise: what is missing are shape and dtype of a node that yields several tensors."""
        if name in ("dtype", "shape"):
            raise TypeError(f"{self.op.name} yields {self.type}, not a tensor")
        raise AttributeError(f"a node has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.type} #{self.serial}>"

    def __reduce__(self) -> Any:
        raise TypeError("nodes are not pickled alone; pickle their Graph")


class _Entry(weakref.ref["Node"]):
    """A node in the table of all nodes: leaves it when the node dies."""

    __slots__ = ("key",)

    key: tuple[Any, ...]


_interned: dict[tuple[Any, ...], _Entry] = {}
_serials = itertools.count()
_unique_ids = itertools.count()
_lock = threading.Lock()


def unique_id() -> int:
    """A number never given before: the identity of an effectful operation."""
    return next(_unique_ids)


def make_node(op: OpDef, inputs: Iterable[Node], attrs: Attrs, type: Type) -> Node:
    """The interned node; does no type inference (see :func:`graphflow.ir.build.emit`)."""
    return _intern(op, tuple(inputs), attrs, attrs_key(attrs), type)


def with_inputs(node: Node, inputs: Iterable[Node]) -> Node:
    """``node`` on other operands, which have the types of its own (itself on its own)."""
    inputs = tuple(inputs)
    if inputs == node.inputs:
        return node
    return _intern(node.op, inputs, node.attrs, node.attrs_key, node.type)


def _intern(op: OpDef, inputs: tuple[Node, ...], attrs: Attrs, own: Any, type: Type) -> Node:
    """The node of these facts (``own`` is the key of ``attrs``), made if there is none."""
    key: tuple[Any, ...]
    if type.__class__ is TensorType:  # its parts are hashed in half the time
        key = (op.name, inputs, own, type.dtype.short, type.shape)
    else:
        key = (op.name, inputs, own, type)
    with _lock:
        entry = _interned.get(key)
        node = entry() if entry is not None else None
        if node is None:
            node = Node()
            node.op, node.inputs, node.attrs, node.type = op, inputs, dict(attrs), type
            node.attrs_key, node.serial = own, next(_serials)
            if type.__class__ is TensorType:
                node.shape, node.dtype = type.shape, type.dtype
            entry = _interned[key] = _Entry(node, _forget)
            entry.key = key
    return node


def _forget(entry: _Entry) -> None:
    """Drop the entry of a dead node, unless another node has taken its place meanwhile."""
    if _interned.get(entry.key) is entry:
        del _interned[entry.key]


def attrs_key(attrs: Attrs) -> tuple[Any, ...]:
    """A hashable key that tells apart what ``==`` merges (0.0/-0.0, 1/True/1.0)."""
    if not attrs:
        return ()
    return tuple((name, value_key(attrs[name])) for name in sorted(attrs))


def value_key(value: Any) -> Any:
    """Key of one attribute value, by type and bit pattern."""
    kind = value.__class__
    if kind is int or kind is str or value is None or kind is bool:
        return (kind.__name__, value)
    if kind is float:
        return ("float", struct.pack("<d", value))
    if kind is tuple:
        return ("tuple", tuple(map(value_key, value)))
    if isinstance(value, DType):
        return ("dtype", value.short)
    if isinstance(value, (TensorType, TupleType)):
        return ("type", value)
    if isinstance(value, ArrayValue):
        return ("array", value.digest)
    key: Callable[[], Any] | None = getattr(value, "attribute_key", None)
    if key is not None:  # a symbolic dimension's canonical form, a region graph
        return (kind.__name__, key())
    raise TypeError(f"{value!r} of type {kind.__name__} cannot be an attribute")


def topological(roots: Iterable[Node]) -> list[Node]:
    """Every node that ``roots`` reach, inputs before users.  Iterative, linear."""
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        if root in done:
            continue
        stack: list[tuple[Node, Iterator[Node]]] = [(root, iter(root.inputs))]
        done.add(root)
        while stack:
            node, pending = stack[-1]
            for child in pending:
                if child not in done:
                    done.add(child)
                    stack.append((child, iter(child.inputs)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order
