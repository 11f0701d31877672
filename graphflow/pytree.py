"""Pytrees: nested tuples, lists, dicts, dataclasses and namedtuples with leaves.

Dicts are also ``OrderedDict``, ``defaultdict`` and sub-classes of those, which are made again of
their items in order; a slice is a nest of its three parts.  :func:`register` adds a class.

``flatten`` takes a nest apart into its leaves and a hashable :class:`Structure`;
``unflatten`` puts leaves back.  Anything that is not a container is a leaf.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphflow.records import NamedTuple


class Structure(NamedTuple):
    """The shape of a nest: the container's class, what names its items, and the items.

    ``factory`` is what a ``defaultdict`` makes missing items with; ``_Items`` says that the
    container is made of pairs of key and item, though it is a class of the user's; a
    :class:`Node` is how a registered class is made.
    """

    kind: type | None
    keys: tuple[Any, ...]
    children: tuple[Structure, ...]
    factory: Any = None

    @property
    def num_leaves(self) -> int:
        """How many leaves a nest of this structure has."""
        return 1 if self.kind is None else sum(child.num_leaves for child in self.children)


class _Items:
    """See :class:`Structure`."""


class Node(NamedTuple):
    """How a registered class is taken apart, into items and whatever else, and made of these."""

    apart: Callable[[Any], tuple[Any, Any]]
    make: Callable[[list[Any], Any], Any]


class _Rest:
    """What there is of a nest beside its items: as a key, it need not be hashable."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(type(self.value))


_registered: dict[type, Node] = {}


def register(kind: type, node: Node) -> None:
    """From now on instances of ``kind`` are nests."""
    if kind in _registered:
        raise ValueError(f"{kind.__name__} is registered as a nest already")
    _registered[kind] = node


def is_registered(kind: type) -> bool:
    """Whether ``kind`` was given to :func:`register`."""
    return kind in _registered


LEAF = Structure(None, (), ())


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], Structure]:
    """The leaves in order, and the structure to put them back; ``is_leaf`` may name more."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves, is_leaf)


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The nest of this structure with these leaves."""
    return _build(structure, iter(leaves))


def count(structure: Structure) -> int:
    """How many leaves a nest of this structure has."""
    return structure.num_leaves


def _flatten(tree: Any, leaves: list[Any], is_leaf: Callable[[Any], bool] | None) -> Structure:
    if is_leaf is not None and is_leaf(tree):
        leaves.append(tree)
        return LEAF
    kind = type(tree)

    def each(items: Any) -> tuple[Structure, ...]:
        return tuple(_flatten(item, leaves, is_leaf) for item in items)

    if kind is tuple or kind is list:
        return Structure(kind, (), each(tree))
    if kind is dict or kind is OrderedDict or kind is defaultdict:
        children = each(tree.values())
        return Structure(kind, tuple(tree), children, getattr(tree, "default_factory", None))
    if kind in _registered:
        items, rest = _registered[kind].apart(tree)
        return Structure(kind, (_Rest(rest),), each(items), _registered[kind])
    if kind is slice:
        return Structure(kind, (), each((tree.start, tree.stop, tree.step)))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return Structure(kind, (), each(tree))
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        names = tuple(field.name for field in fields(tree))
        return Structure(kind, names, each(getattr(tree, n) for n in names))
    if isinstance(tree, dict):
        return Structure(kind, tuple(tree), each(tree.values()), _Items)
    leaves.append(tree)
    return LEAF


def _build(structure: Structure, leaves: Iterator[Any]) -> Any:
    kind, keys, children, factory = structure
    if kind is None:
        return next(leaves)
    items = [_build(child, leaves) for child in children]
    if kind is tuple or kind is list:
        return kind(items)
    if kind is defaultdict:
        return defaultdict(factory, zip(keys, items, strict=True))
    if kind is dict or kind is OrderedDict or factory is _Items:
        return kind(zip(keys, items, strict=True))
    if isinstance(factory, Node):
        return factory.make(items, keys[0].value)
    if keys:
        return kind(**dict(zip(keys, items, strict=True)))
    return kind(*items)
