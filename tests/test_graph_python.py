"""Graphs as Python functions: tracing the text gives the same graph."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import random_graph
from op_cases import all_cases

import graphflow as gf
from graphflow import primitives as p
from graphflow.errors import GraphError
from graphflow.ir.build import NODES, constant, emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.ops.control import SCAN
from graphflow.ir.types import TensorType, float32
from graphflow.passes.pipeline import run_pipeline
from graphflow.records import replace

ROOT = Path(__file__).parent.parent


def module_of(graph: Graph) -> dict[str, Any]:
    """What executing the text of ``graph`` defines."""
    text = graph.to_python()
    namespace: dict[str, Any] = {}
    exec(compile(text, "graph.py", "exec"), namespace)
    (namespace["function"],) = (v for v in namespace.values() if hasattr(v, "__code__"))
    return namespace


def again(graph: Graph) -> Graph:
    """``graph`` through Python and back."""
    module = module_of(graph)
    return gf.trace(module["function"], *module["SPECS"])


def normal(graph: Graph) -> Graph:
    """Without state that is written back unchanged, which a trace does not record."""
    return replace(graph, updates=tuple((c, v) for c, v in graph.updates if c is not v))


def static_state(seed: int) -> Graph | None:
    graph = random_graph(seed, 30, symbolic=True).graph
    return graph if all(n.tensor_type.is_static for n in graph.state) else None


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed: int) -> None:
    graph = normal(random_graph(seed, 40).graph)
    found = again(graph)
    assert found.same_as(graph), f"{graph.diff(found)}\n{graph.to_python()}"


def test_random_graphs_with_symbols() -> None:
    graphs = [g for g in map(static_state, range(40)) if g is not None]
    assert len(graphs) > 8
    for graph in graphs:
        found = again(normal(graph))
        assert found.same_as(normal(graph)), f"{graph.diff(found)}\n{graph.to_python()}"


@pytest.mark.parametrize("seed", range(4))
def test_every_stage_of_the_pipeline(seed: int) -> None:
    for stage in run_pipeline(normal(random_graph(seed, 50).graph)):
        assert again(stage.graph).same_as(normal(stage.graph)), stage.name


def test_every_operation() -> None:
    first: dict[str, Any] = {}
    for case in all_cases():
        first.setdefault(f"{case.op.name} {case.dtype.kind}", case)
    wrong = [label for label, c in first.items() if not again(c.graph()).same_as(c.graph())]
    assert len(first) > 150 and wrong == []


def test_a_training_step_of_a_model() -> None:
    sys.path.insert(0, str(ROOT / "models"))
    try:
        import mlp

        step, specs = mlp.build()
    finally:
        sys.path.remove(str(ROOT / "models"))
        for name in ("mlp", "harness"):
            sys.modules.pop(name, None)
    graph = gf.trace(step, *specs)
    text = graph.to_python()
    assert again(graph).same_as(graph)
    for line in (
        "def step(images, labels,",
        "    t6 = gf.relu(t5)  # ",
        "mlp.py:38 model.fc1",
        "    gf.TensorSpec((64, 784), gf.float32, name='images'),",
        "    'model.fc1.weight': \"f32[128,784]\",",
    ):
        assert line in text


@pytest.mark.parametrize("seed", range(5))
def test_the_function_runs_eagerly_and_compiled(seed: int) -> None:
    case = random_graph(seed, 25, control=False)
    expected = interpret(case.graph, case.args, case.state)
    for jit in (lambda f: f, gf.compile):
        module = module_of(case.graph)
        tensors = module["STATE"].tensors
        for name, array in case.state.items():
            tensors[name].copy_(gf.from_numpy(array))
        with gf.no_grad():
            found = jit(module["function"])(*map(gf.from_numpy, case.args))
        found = found if isinstance(found, tuple) else (found,)
        for one, other in zip(found, expected.outputs, strict=True):
            np.testing.assert_allclose(one.numpy(), other, rtol=1e-4, atol=1e-5)
        for name, array in expected.state.items():
            np.testing.assert_allclose(tensors[name].numpy(), array, rtol=1e-4, atol=1e-5)


def test_swapped_state_repeated_outputs_and_returned_inputs() -> None:
    graph = Graph.parse(
        'graph swap {\n%x: f32[] = input(name="x")\n%unused: f32[] = input(name="unused")\n'
        '%a: f32[] = state(name="a")\n%b: f32[] = state(name="b")\n%0 = neg(%x)\n'
        "return %x, %0, %0, %a\nupdate %a = %b\nupdate %b = %a\n}\n"
    )
    assert again(graph).same_as(graph)
    module = module_of(graph)
    module["STATE"].tensors["a"].fill_(1.0)
    x, minus, _, old = module["function"](gf.tensor(3.0), gf.tensor(0.0))
    assert (x.item(), minus.item(), old.item()) == (3, -3, 1)
    assert [t.item() for t in module["STATE"].tensors.values()] == [0, 1]


def test_regions_and_operations_with_several_results() -> None:
    c, x = input_node("c", TensorType(float32, ())), input_node("x", TensorType(float32, ()))
    body = Graph((c, x), (NODES.add(c, x), NODES.mul(c, x)), name="body")
    xs, init = input_node("xs", TensorType(float32, (4,))), constant(np.float32(0))
    whole = emit(SCAN, init, xs, body=body, carried=1, scanned=1, length=4, reverse=False)
    graph = Graph((xs,), tuple(emit("get", whole, index=i) for i in range(2)), name="loop")
    assert again(graph).same_as(graph)
    text = graph.to_python()
    assert 'p.region(r"""' in text and "t1[1]" in text


def test_odd_names_and_bits_survive() -> None:
    values = np.array([-0.0, np.inf, np.nan, 1e-45], np.float32)
    values.view(np.uint32)[2] = 0x7FC00123
    leaves = [input_node(n, TensorType(float32, (4,))) for n in ('a"""b', "class", "a b", "gf")]
    total = constant(values)
    for leaf in leaves:
        total = NODES.add(total, leaf)
    big = constant(np.arange(100).reshape(4, 25).astype(np.float16))
    graph = Graph(tuple(leaves), (total, NODES.neg(big)), name='"""\n import os')
    found = again(graph)
    assert found.constants == graph.constants and found.outputs == graph.outputs
    assert "def _____import_os(" in graph.to_python() and "class_" in graph.to_python()


def test_three_thousand_nodes() -> None:
    x = node = input_node("x", TensorType(float32, (2,)))
    for _ in range(3_000):
        node = NODES.tanh(node)
    graph = Graph((x,), (node,))
    assert again(graph).same_as(graph)


def test_what_has_no_form_is_refused() -> None:
    graph = Graph.parse('graph g {\n%w: f32[n] = state(name="w")\n%0 = neg(%w)\nreturn %0\n}\n')
    with pytest.raises(GraphError, match=r"state 'w' of type f32\[n\] has no form in Python"):
        graph.to_python()


def test_primitives_are_functions_with_gradients() -> None:
    x = gf.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    p.reduce_sum(p.permute(x, axes=(1, 0)), axes=(0, 1)).backward()
    assert x.grad.tolist() == [[1, 1, 1]]
    with pytest.raises(AttributeError, match=r"unknown operation 'tanhh'; did you mean tanh"):
        p.tanhh  # noqa: B018
    with pytest.raises(GraphError, match="no type of a tensor"):
        p.constant("(f32[], f32[])", "0.0")
