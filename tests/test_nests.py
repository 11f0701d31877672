"""PyTorch's functions over nests, and nests of the user's own classes."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest

import graphflow as gf
from graphflow import pytree
from graphflow.utils import _pytree as trees

Point = namedtuple("Point", "x y")


@dataclass
class Options:
    size: int
    steps: list[int]


class Pair:
    def __init__(self, left: Any, right: Any, names: list[str]) -> None:
        self.left, self.right, self.names = left, right, names


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytree, "_registered", {})
    trees.register_pytree_node(
        Pair, lambda p: ([p.left, p.right], p.names), lambda items, names: Pair(*items, names)
    )


def test_nests_come_apart_and_together_again() -> None:
    nest = {"b": [1, (2, None)], "a": OrderedDict(c=Point(3, 4)), "d": defaultdict(list, e=5)}
    leaves, spec = trees.tree_flatten(nest)
    assert leaves == [1, 2, None, 3, 4, 5] == trees.tree_leaves(nest)
    assert spec.num_leaves == 6 and spec == trees.tree_structure(nest)
    made = trees.tree_unflatten(iter(leaves), spec)
    assert made == nest and type(made["a"]) is OrderedDict and made["d"].default_factory is list
    with pytest.raises(ValueError, match="has 6 leaves, not 1"):
        trees.tree_unflatten([1], spec)
    assert trees.tree_flatten(7) == ([7], trees.LeafSpec())


def test_what_pytorch_takes_for_leaves_are_leaves() -> None:
    given = [Options(1, [2]), slice(0, 2), 3]
    assert trees.tree_leaves(given) == given
    inner = trees.tree_leaves([[1, 2], [3]], is_leaf=lambda t: isinstance(t, list) and len(t) == 2)
    assert inner == [[[1, 2], [3]]]
    assert trees.tree_leaves([(1, 2), [3]], is_leaf=lambda t: isinstance(t, tuple)) == [(1, 2), 3]


def test_functions_of_several_nests() -> None:
    first, second = {"a": 1, "b": [2, 3]}, {"b": [20, (30,)], "a": 10}
    made = trees.tree_map(lambda x, y: (x, y), first, second)
    assert made == {"a": (1, 10), "b": [(2, 20), (3, (30,))]}
    for wrong in ({"a": 1}, {"a": 1, "b": (2, 3)}, {"a": 1, "b": [2]}):
        with pytest.raises(ValueError, match="tree_map"):
            trees.tree_map(max, first, wrong)
    assert trees.tree_map_only(int, lambda x: -x, (1, "a", [2.0, 3])) == (-1, "a", [2.0, -3])
    assert trees.tree_map_only(lambda x: x == "a", len, (1, "a")) == (1, 1)
    assert trees.tree_all(lambda x: x > 0, first) and not trees.tree_any(lambda x: x > 3, first)


@pytest.mark.usefixtures("pairs")
def test_a_registered_class_is_a_nest_to_compiled_functions_too() -> None:
    made = trees.tree_map(lambda x: x + 1, {"p": Pair(1, [2], ["a", "b"])})["p"]
    assert (made.left, made.right, made.names) == (2, [3], ["a", "b"])
    traces = []

    @gf.compile
    def swapped(pair: Pair) -> Pair:
        traces.append(pair.names)
        return Pair(pair.right * 2, pair.left, pair.names[::-1])

    for names in (["a", "b"], ["a", "b"], ["c", "d"]):
        found = swapped(Pair(gf.ones(2), gf.full((2,), 3.0), list(names)))
        assert found.left.tolist() == [6, 6] and found.right.tolist() == [1, 1]
        assert found.names == names[::-1]
    assert traces == [["a", "b"], ["c", "d"]]
    with pytest.raises(ValueError, match="Pair is registered"):
        trees.register_pytree_node(Pair, vars, Pair)
