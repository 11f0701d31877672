"""Decomposition by the rules that operation records carry."""

import numpy as np
import pytest

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, make_node
from graphflow.ir.op import lookup
from graphflow.ir.types import TensorType, float32
from graphflow.passes.decompose import Decompose
from graphflow.records import replace

X = input_node("x", TensorType(float32, (2, 3)))


def softsign(x: Node, scale: float) -> Node:
    """An operation that no kernel exists for: x / (scale + |x|)."""
    op = replace(
        lookup("tanh"),
        name="softsign",
        reference=lambda x, scale: x / (np.float32(scale) + np.abs(x)),
        decompose=lambda b, n: n.inputs[0] / (b.abs(n.inputs[0]) + n.attrs["scale"]),
    )
    return make_node(op, (x,), {"scale": scale}, x.type)


def test_an_operation_with_a_rule_is_replaced_by_its_parts() -> None:
    graph = Graph((X,), (NODES.sin(softsign(softsign(X, 1.0), 2.0)),))
    result = Decompose().run(graph).verify("traced")
    assert {n.op.name for n in result.nodes} == {"input", "abs", "add", "div", "sin", "constant"}
    args = [np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)]
    np.testing.assert_array_equal(result.run(*args)[0], graph.run(*args)[0])


def test_operations_may_be_kept() -> None:
    graph = Graph((X,), (softsign(X, 1.0),))
    assert Decompose(keep=frozenset(["softsign"])).run(graph) is graph


def test_operations_with_a_kernel_are_left_alone() -> None:
    graph = Graph((X,), (NODES.argmax(NODES.reduce_prod(X, axes=(0,)), axis=0),))
    assert Decompose().run(graph) is graph


def test_a_rule_may_yield_less_than_the_full_shape() -> None:
    op = replace(lookup("tanh"), name="zero", decompose=lambda b, n: b.constant(value=HALF))
    result = Decompose().run(Graph((X,), (make_node(op, (X,), {}, X.type),)))
    assert result.outputs[0].type == X.type


HALF = NODES.mul(X, 0.5).inputs[1].attrs["value"]


def test_options_are_printed() -> None:
    assert str(Decompose()) == "decompose"
    with pytest.raises(AttributeError):
        Decompose().keep = frozenset()  # type: ignore[misc]
    assert str(Decompose(frozenset(["a"]))) == "decompose{keep=frozenset({'a'})}"
