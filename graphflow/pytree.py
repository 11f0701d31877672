"""Pytrees: nested tuples, lists, dicts, dataclasses and namedtuples with leaves.

Dicts are also ``OrderedDict``, ``defaultdict`` and sub-classes of those, which are made again of
their items in order; a slice is a nest of its three parts.

``flatten`` takes a nest apart into its leaves and a hashable :class:`Structure`;
``unflatten`` puts leaves back.  Anything that is not a container is a leaf.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """The shape of a nest: the container's class, what names its items, and the items.

    ``factory`` is what a ``defaultdict`` makes missing items with; ``_Items`` says that the
    container is made of pairs of key and item, though it is a class of the user's.
    """

    kind: type | None
    keys: tuple[Any, ...]
    children: tuple[Structure, ...]
    factory: Any = None


class _Items:
    """See :class:`Structure`."""


LEAF = Structure(None, (), ())


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves in order, and the structure to put them back."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The nest of this structure with these leaves."""
    return _build(structure, iter(leaves))


def count(structure: Structure) -> int:
    """How many leaves a nest of this structure has."""
    return 1 if structure.kind is None else sum(map(count, structure.children))


def _flatten(tree: Any, leaves: list[Any]) -> Structure:
    kind = type(tree)
    if kind is tuple or kind is list:
        return Structure(kind, (), tuple(_flatten(item, leaves) for item in tree))
    if kind is dict or kind is OrderedDict or kind is defaultdict:
        children = tuple(_flatten(item, leaves) for item in tree.values())
        return Structure(kind, tuple(tree), children, getattr(tree, "default_factory", None))
    if kind is slice:
        parts = (tree.start, tree.stop, tree.step)
        return Structure(kind, (), tuple(_flatten(item, leaves) for item in parts))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return Structure(kind, (), tuple(_flatten(item, leaves) for item in tree))
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        names = tuple(field.name for field in fields(tree))
        return Structure(kind, names, tuple(_flatten(getattr(tree, n), leaves) for n in names))
    if isinstance(tree, dict):
        children = tuple(_flatten(item, leaves) for item in tree.values())
        return Structure(kind, tuple(tree), children, _Items)
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
    if keys:
        return kind(**dict(zip(keys, items, strict=True)))
    return kind(*items)
