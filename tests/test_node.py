"""Nodes: interning by type and bit pattern, and iterative traversal."""

import gc
import itertools
import weakref

import numpy as np
import pytest

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES, constant, input_node, splat
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph
from graphflow.ir.node import ArrayValue, Node, topological, value_key
from graphflow.ir.types import TensorType, TupleType, float32, float64, int32, int64
from tests.threads import in_threads

X = input_node("x", TensorType(float32, (4,)))


def test_the_same_operation_is_the_same_object() -> None:
    assert NODES.tanh(X) is NODES.tanh(X)
    assert X + 1.0 is X + 1.0
    assert input_node("x", X.tensor_type) is X
    assert input_node("y", X.tensor_type) is not X
    assert input_node("x", TensorType(float64, (4,))) is not X


def test_values_are_told_apart_by_type_and_bits() -> None:
    values = [
        0, 0.0, -0.0, False, None, "", (), (0,), (0.0,), (1, 0), (1, False), (True, 0), 1, 1.0,
        True, "1", float("nan"),
        float("inf"), float32, int32, TensorType(float32, ()), TupleType(()), symbol("n"),
        symbol("n") + 1, "n", ArrayValue(np.zeros(1, np.float32)), ArrayValue(-np.zeros(1)),
        ArrayValue(np.zeros(1)), ArrayValue(np.zeros((1, 1))), ArrayValue(np.zeros(1, np.int64)),
        Graph((X,), (X,)), Graph((X,), (NODES.tanh(X),)),
    ]  # fmt: skip
    for a, b in itertools.combinations(values, 2):
        assert value_key(a) != value_key(b), (a, b)
    for a in values:
        assert value_key(a) == value_key(a) and hash(value_key(a)) == hash(value_key(a))


def test_zeros_of_either_sign_are_different_constants() -> None:
    assert constant(0.0, float32) is not constant(-0.0, float32)
    assert constant(1, int64) is not constant(1.0, float64)
    for like in (1, 1.0, True):
        assert constant(like).attrs["value"].array.dtype == np.asarray(like).dtype
    assert constant(float("nan"), float32) is constant(float("nan"), float32)


def test_an_unknown_attribute_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be an attribute"):
        value_key([1, 2])


def test_array_data_is_a_read_only_copy() -> None:
    array = np.arange(3.0)
    value = ArrayValue(array)
    array[0] = 7
    assert value.array[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        value.array[0] = 1


def test_dead_nodes_are_freed() -> None:
    node = NODES.tanh(NODES.sin(NODES.tanh(X)))
    ref = weakref.ref(node)
    del node
    gc.collect()
    assert ref() is None


def test_interning_is_safe_across_threads() -> None:
    def build(number: int) -> list[Node]:
        node, made = X, []
        for i in range(200):
            node = node * float(i)
            made.append(node)
        return made

    found = in_threads(4, build)
    assert all(made == found[0] for made in found)


def test_topological_order_is_iterative_and_right() -> None:
    node = X
    for i in range(50_000):
        node = NODES.tanh(node) if i % 2 else NODES.sin(node)
    order = topological([node])
    assert len(order) == 50_001
    position = {n: i for i, n in enumerate(order)}
    assert all(position[i] < position[n] for n in order for i in n.inputs)


def test_serials_grow_from_operands_to_users() -> None:
    node = NODES.exp(X) + NODES.log(X)
    assert all(i.serial < n.serial for n in topological([node]) for i in n.inputs)


def test_operators_build_nodes() -> None:
    assert (2.0 - X).op.name == "sub" and (2.0 - X).inputs[1] is X
    assert (-X).op.name == "neg" and (X / 2.0).op.name == "div"
    assert splat(1.0, TensorType(float32, ())).op.name == "constant"
    assert splat(1.0, X.tensor_type).op.name == "expand"


def test_nodes_are_not_pickled_alone() -> None:
    with pytest.raises(TypeError, match="Graph"):
        X.__reduce__()
