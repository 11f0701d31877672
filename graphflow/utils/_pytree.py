"""PyTorch's functions over nests (:mod:`graphflow.pytree`), at PyTorch's address.

Dataclasses, slices and sub-classes of dicts are leaves here until they are registered, as in
PyTorch; a class that is registered is a nest to all of GraphFlow, arguments and results of
compiled functions included.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from graphflow import pytree
from graphflow.pytree import LEAF, Node, Structure

__all__ = [
    "LeafSpec", "PyTree", "TreeSpec", "register_pytree_node", "tree_all", "tree_any",
    "tree_flatten", "tree_iter", "tree_leaves", "tree_map", "tree_map_", "tree_map_only",
    "tree_structure", "tree_unflatten",
]  # fmt: skip

PyTree: TypeAlias = Any
TreeSpec = Structure
IsLeaf: TypeAlias = Callable[[Any], bool] | None


def LeafSpec() -> TreeSpec:
    """The structure of a leaf."""
    return LEAF


def register_pytree_node(
    cls: type, flatten_fn: Callable[[Any], tuple[Any, Any]],
    unflatten_fn: Callable[[Any, Any], Any], **names: Any,
) -> None:  # fmt: skip
    """Make instances of ``cls`` nests.

    ``flatten_fn`` gives the items and whatever else there is; ``unflatten_fn`` makes one of these.
    Options about writing structures to files are accepted and mean nothing here.
    """
    pytree.register(cls, Node(flatten_fn, unflatten_fn))


def _leaf(given: IsLeaf) -> Callable[[Any], bool]:
    def ends(tree: Any) -> bool:
        if given is not None and given(tree):
            return True
        kind = type(tree)
        if kind in _DICTS or pytree.is_registered(kind):
            return False
        return kind is slice or isinstance(tree, dict) or hasattr(kind, "__dataclass_fields__")

    return ends


_DICTS = (dict, OrderedDict, defaultdict)


def tree_flatten(tree: PyTree, is_leaf: IsLeaf = None) -> tuple[list[Any], TreeSpec]:
    """The leaves in order, and the structure to put them back."""
    return pytree.flatten(tree, _leaf(is_leaf))


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> PyTree:
    """The nest of this structure with these leaves."""
    given = list(leaves)
    if len(given) != treespec.num_leaves:
        raise ValueError(
            f"tree_unflatten: the structure has {treespec.num_leaves} leaves, not {len(given)}"
        )
    return pytree.unflatten(treespec, given)


def tree_leaves(tree: PyTree, is_leaf: IsLeaf = None) -> list[Any]:
    """The leaves in order."""
    return tree_flatten(tree, is_leaf)[0]


def tree_iter(tree: PyTree, is_leaf: IsLeaf = None) -> Iterable[Any]:
    """The leaves in order."""
    return iter(tree_leaves(tree, is_leaf))


def tree_structure(tree: PyTree, is_leaf: IsLeaf = None) -> TreeSpec:
    """What :func:`tree_unflatten` needs beside leaves."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(
    func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: IsLeaf = None
) -> PyTree:
    """``func`` of every leaf, and of what other nests have in its place."""
    leaves, spec = tree_flatten(tree, is_leaf)
    columns = [_up_to(spec, rest) for rest in rests]
    return pytree.unflatten(spec, [func(*row) for row in zip(leaves, *columns, strict=True)])


def tree_map_(
    func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: IsLeaf = None
) -> PyTree:
    """:func:`tree_map` for a function that changes its argument; gives ``tree``."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def tree_map_only(
    kinds: Any, /, func: Callable[[Any], Any], tree: PyTree, is_leaf: IsLeaf = None
) -> PyTree:
    """``func`` of the leaves of these classes (or for which this function is true)."""
    a_class = isinstance(kinds, (type, tuple)) or not callable(kinds)

    def each(leaf: Any) -> Any:
        wanted = isinstance(leaf, kinds) if a_class else kinds(leaf)
        return func(leaf) if wanted else leaf

    return tree_map(each, tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: PyTree, is_leaf: IsLeaf = None) -> bool:
    """Whether ``pred`` is true of every leaf."""
    return all(map(pred, tree_leaves(tree, is_leaf)))


def tree_any(pred: Callable[[Any], bool], tree: PyTree, is_leaf: IsLeaf = None) -> bool:
    """Whether ``pred`` is true of any leaf."""
    return any(map(pred, tree_leaves(tree, is_leaf)))


def _up_to(spec: TreeSpec, tree: PyTree) -> list[Any]:
    """What stands in ``tree`` where ``spec`` has leaves."""
    if spec.kind is None:
        return [tree]
    items, own = pytree.flatten(tree, lambda part: part is not tree)
    places = list(range(len(items)))
    if spec.kind in _DICTS and set(spec.keys) == set(own.keys):
        places = [own.keys.index(key) for key in spec.keys]
    elif own.kind is not spec.kind or own.keys != spec.keys:
        raise ValueError(f"tree_map: the nests differ: a {type(tree).__name__} where {spec.kind}")
    if len(places) != len(spec.children):
        raise ValueError(f"tree_map: {len(places)} items in a nest that has {len(spec.children)}")
    pairs = zip(places, spec.children, strict=True)
    return [found for place, child in pairs for found in _up_to(child, items[place])]
