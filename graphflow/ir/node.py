"""Immutable, interned nodes.

``Node(op, inputs, attrs, type)`` is built by :func:`make_node` only, which
returns the *same object* for the same operation on the same inputs: equality
is identity, and pure duplicates never exist.  Names and source locations are
not part of a node; they live beside it, in :class:`graphflow.ir.graph.Graph`.

What a node is apart from whose results it reads is its :class:`Form`, which is
interned too: a deep model has many nodes of few forms.  What follows from the form
alone is found once for all of them (:func:`of_form`).

Attributes are plain values: ``bool int float str None``, dtypes, types,
tuples of those, :class:`ArrayValue` (a constant's data) and closed graphs
(regions).  They are keyed by type *and* bit pattern, because a Python dict
would merge ``0.0`` with ``-0.0`` and ``1`` with ``True``.
"""

from __future__ import annotations

import functools
import itertools
import struct
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np

from graphflow.digests import new_digest
from graphflow.ir.types import DType, TensorType, TupleType, Type, from_numpy_dtype

if TYPE_CHECKING:
    from graphflow.ir.op import OpDef

Attrs: TypeAlias = Mapping[str, Any]
Find = TypeVar("Find", bound="Callable[..., Any]")


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


class Form:
    """What all nodes that differ in their operands alone have in common.

    There is one object for the same operation with the same attributes on operands of the
    same types, with a result of the same type.
    """

    __slots__ = ("__weakref__", "attrs", "attrs_key", "found", "op", "type")

    def __init__(
        self, op: OpDef, attrs: Attrs | None, attrs_key: tuple[Any, ...], type: Type
    ) -> None:
        self.op, self.type = op, type
        self.attrs = attrs
        """The attributes; ``None`` where some are regions: those are equal, but stand in
        several places of the user's code."""
        self.attrs_key = attrs_key
        """:func:`attrs_key` of the attributes."""
        self.found: dict[Any, Any] = {}
        """The answers of functions that are :func:`of_form`."""


class Node:
    """One operation and its result.  ``node.attrs[name]`` reads an attribute.

    Arithmetic operators build further nodes, so gradient rules and
    decompositions read as formulas (see :mod:`graphflow.ir.build`).
    """

    __slots__ = (
        "__weakref__", "attrs", "dtype", "form", "inputs", "op", "serial", "shape", "type",
    )  # fmt: skip

    form: Form
    op: OpDef
    inputs: tuple[Node, ...]
    attrs: Attrs
    type: Type
    serial: int
    """Creation order; inputs always have smaller serials than their users."""
    shape: tuple[Any, ...]
    """Shape of a tensor-valued node."""
    dtype: DType
    """Element type of a tensor-valued node."""

    @property
    def attrs_key(self) -> tuple[Any, ...]:
        """:func:`attrs_key` of the attributes."""
        return self.form.attrs_key

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
_forms: weakref.WeakValueDictionary[tuple[Any, ...], Form] = weakref.WeakValueDictionary()
_types: weakref.WeakValueDictionary[tuple[Any, ...], TensorType] = weakref.WeakValueDictionary()
_serials = itertools.count()
_unique_ids = itertools.count()
_lock = threading.Lock()


def unique_id() -> int:
    """A number never given before: the identity of an effectful operation."""
    return next(_unique_ids)


def make_node(op: OpDef, inputs: Iterable[Node], attrs: Attrs, type: Type) -> Node:
    """The interned node; does no type inference (see :func:`graphflow.ir.build.emit`)."""
    inputs = tuple(inputs)
    form = form_of(op, [n.type for n in inputs], attrs, attrs_key(attrs), type)
    return with_form(form, inputs, attrs)


def with_inputs(node: Node, inputs: Iterable[Node]) -> Node:
    """``node`` on other operands, which have the types of its own (itself on its own)."""
    inputs = tuple(inputs)
    return node if inputs == node.inputs else with_form(node.form, inputs, node.attrs)


def form_of(
    op: OpDef, types: Iterable[Type], attrs: Attrs, own: tuple[Any, ...], type: Type
) -> Form:
    """The form of nodes with these facts (``own`` is the key of ``attrs``)."""
    key = (op, own, type, *types)
    with _lock:
        form = _forms.get(key)
        if form is None:
            if type.__class__ is TensorType:  # one object, which is quick to compare
                type = _types.setdefault((type.dtype.short, type.shape), type)
            shared = None if _has_regions(attrs) else dict(attrs)
            form = _forms[key] = Form(op, shared, own, type)
    return form


def _has_regions(attrs: Attrs) -> bool:
    if not attrs:
        return False
    from graphflow.ir.graph import Graph  # which is made of nodes

    return any(isinstance(value, Graph) for value in attrs.values())


def with_form(form: Form, inputs: Iterable[Node], attrs: Attrs) -> Node:
    """The node of this form on operands ``inputs``, made if there is none."""
    inputs = tuple(inputs)
    key = (form, *inputs)
    with _lock:
        entry = _interned.get(key)
        node = entry() if entry is not None else None
        if node is None:
            node = Node()
            node.form, node.inputs, node.serial = form, inputs, next(_serials)
            node.op = form.op
            node.attrs = dict(attrs) if form.attrs is None else form.attrs
            node.type = type = form.type
            if type.__class__ is TensorType:
                node.shape, node.dtype = type.shape, type.dtype
            entry = _interned[key] = _Entry(node, _forget)
            entry.key = key
    return node


def of_form(find: Find) -> Find:
    """``find(node, …)``, asked once for a form and what else is given: it depends on nothing
    else, and its answer holds no node."""

    @functools.wraps(find)
    def known(node: Node, *given: Any) -> Any:
        found = node.form.found
        key = (find, *given)
        answer = found.get(key, found)
        if answer is found:
            answer = found[key] = find(node, *given)
        return answer

    return cast("Find", known)


def _forget(entry: _Entry) -> None:
    """Drop the entry of a dead node, unless another node has taken its place meanwhile."""
    if _interned.get(entry.key) is entry:
        del _interned[entry.key]


def attrs_key(attrs: Attrs) -> tuple[Any, ...]:
    """A hashable key that tells apart what ``==`` merges (0.0/-0.0, 1/True/1.0)."""
    if not attrs:
        return ()
    if len(attrs) == 1:
        [(name, value)] = attrs.items()
        return ((name, value_key(value)),)
    return tuple([(name, value_key(attrs[name])) for name in sorted(attrs)])


_INTEGERS = {int}


def value_key(value: Any) -> Any:
    """Key of one attribute value, by type and bit pattern."""
    kind = value.__class__
    if kind is int or kind is str or value is None or kind is bool:
        return (kind.__name__, value)
    if kind is float:
        return ("float", struct.pack("<d", value))
    if kind is tuple:
        if set(map(type, value)) == _INTEGERS:
            return ("integers", value)
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


def ancestors(node: Node, is_known: Callable[[Node], bool]) -> Iterator[Node]:
    """``node`` and all that it is made of, up to what is known, each once."""
    ahead, met = [node], {node}
    while ahead:
        one = ahead.pop()
        yield one
        found = [n for n in one.inputs if n not in met and not is_known(n)]
        ahead += found
        met.update(found)


def topological(roots: Iterable[Node]) -> list[Node]:
    """Every node that ``roots`` reach, inputs before users.  Iterative, linear."""
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        if root in done:
            continue
        stack: list[Node | None] = [root]  # a node whose operands are in order is above a None
        while stack:
            node = stack.pop()
            if node is None:
                order.append(stack.pop())  # type: ignore[arg-type]
            elif node not in done:
                done.add(node)
                inputs = node.inputs
                if inputs:
                    stack.append(node)
                    stack.append(None)
                    stack.extend(inputs[::-1])
                else:
                    order.append(node)
    return order
