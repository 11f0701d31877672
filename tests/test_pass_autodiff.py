"""Differentiation, graph to graph: against finite differences, and to second order."""

import numpy as np
import pytest
from graphs import SIZES, Case, random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.errors import GraphError
from graphflow.ir.build import NODES, constant, input_node, state_node
from graphflow.ir.dims import evaluate_dim
from graphflow.ir.graph import Graph, Location
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32, float64, int64
from graphflow.passes.autodiff import differentiate
from graphflow.passes.pipeline import run_pipeline
from graphflow.records import replace

S = TensorType(float64, ())
V = TensorType(float64, (3,))
M = TensorType(float64, (3, 2))


def total(node: Node) -> Node:
    return NODES.reduce_sum(node, axes=tuple(range(len(node.shape))))  # type: ignore[no-any-return]


def check(graph: Graph, args: list[np.ndarray], state: dict[str, np.ndarray], of: int = 0) -> Graph:
    """Gradients by every float leaf against central differences, in random directions."""
    leaves = [n for n in (*graph.inputs, *graph.state) if n.dtype.is_floating_point]
    names = [n.attrs["name"] for n in leaves]
    result = differentiate(graph, names, of).verify("differentiated")
    count = len(graph.outputs)
    run = interpret(result, args, state, precision="f64")
    plain = interpret(graph, args, state, precision="f64")
    for one, other in zip(run.outputs, plain.outputs):
        np.testing.assert_array_equal(one, other)
    rng = np.random.default_rng(0)
    for leaf, gradient in zip(leaves, run.outputs[count:], strict=True):
        direction = rng.standard_normal(gradient.shape)
        numeric = slope(graph, args, state, leaf, direction, of)
        exact = float((gradient * direction).sum())
        assert exact == pytest.approx(numeric, rel=2e-5, abs=1e-7), f"{leaf.attrs}\n{result}"
    return result


def slope(
    graph: Graph,
    args: list[np.ndarray],
    state: dict[str, np.ndarray],
    leaf: Node,
    direction: np.ndarray,
    of: int,
) -> float:
    """The derivative of output ``of`` as ``leaf`` moves in ``direction``, by differences."""
    ends = []
    for step in (1e-5, -1e-5):
        moved, cells = list(args), dict(state)
        if leaf in graph.inputs:
            moved[graph.inputs.index(leaf)] = moved[graph.inputs.index(leaf)] + step * direction
        else:
            cells[leaf.attrs["name"]] = cells[leaf.attrs["name"]] + step * direction
        ends.append(float(interpret(graph, moved, cells, precision="f64").outputs[of].sum()))
    return (ends[0] - ends[1]) / 2e-5


def leaf(name: str, type: TensorType = V) -> Node:
    return input_node(name, type)


def test_the_example_of_the_docstring() -> None:
    before = 'graph main {\n  %x: f32[] = input(name="x")\n  %0: f32[] = sin(%x)\n  return %0\n}\n'
    result = run_pipeline(differentiate(Graph.parse(before), "x"))[-2].graph
    after = Graph.parse(
        'graph main {\n  %x: f32[] = input(name="x")\n  %0: f32[] = sin(%x)\n'
        "  %1: f32[] = cos(%x)\n  return %0, %1\n}\n"
    )
    assert result.same_as(after), str(result)


def test_a_dense_layer_with_state() -> None:
    x, w = leaf("x", TensorType(float64, (5, 3))), state_node("w", M)
    b = state_node("b", TensorType(float64, (2,)))
    loss = total(NODES.tanh(NODES.matmul(x, w) + b))
    graph = Graph((x,), (loss,), (w, b), ((w, NODES.neg(w)),))
    rng = np.random.default_rng(1)
    args = [rng.standard_normal((5, 3))]
    result = check(graph, args, {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2)})
    assert result.updates == graph.updates and result.outputs[0] is loss
    assert result.names == {o: f"grad.{n}" for o, n in zip(result.outputs[1:], "xwb")}


def test_a_value_used_twice_adds_up() -> None:
    x = leaf("x")
    graph = Graph((x,), (total(NODES.mul(NODES.sin(x), x) + x * x),))
    check(graph, [np.array([0.3, -1.2, 2.0])], {})


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int) -> None:
    case: Case = random_graph(seed, 25, differentiable=True, symbolic=seed % 4 == 0)
    doubled = {name: array.astype(float) for name, array in case.state.items()}
    print(case)
    check(case.graph, [a.astype(float) for a in case.args], doubled)


@pytest.mark.parametrize("seed", range(12))
def test_second_order(seed: int) -> None:
    case = random_graph(seed, 12, differentiable=True, control=seed % 2 == 0)
    graph = case.graph
    first = differentiate(graph, [n.attrs["name"] for n in graph.inputs])
    seeds = [
        np.random.default_rng(i).standard_normal([evaluate_dim(d, SIZES) for d in o.shape])
        for i, o in enumerate(first.outputs[1:])
    ]
    mixed: Node | None = None
    for gradient, weight in zip(first.outputs[1:], seeds):
        part = total(gradient * constant(weight, float32))
        mixed = part if mixed is None else mixed + part
    assert mixed is not None
    doubled = {name: array.astype(float) for name, array in case.state.items()}
    again = replace(first, outputs=(mixed,), names={})
    print(case)
    check(again, [a.astype(float) for a in case.args], doubled)


# ---- control flow ----------------------------------------------------------------------------


def test_cond_takes_the_gradient_of_the_branch_taken() -> None:
    x, y = leaf("x"), leaf("y")
    a, b = leaf("a"), leaf("b")
    then = Graph((a, b), (NODES.sin(a) * b, total(a)))
    otherwise = Graph((a, b), (NODES.tanh(b), total(a * a)))
    chosen = NODES.cond(NODES.gt(total(x), 0.0), x, y, then=then, otherwise=otherwise)
    loss = total(NODES.get(chosen, index=0)) + NODES.get(chosen, index=1)
    graph = Graph((x, y), (loss,))
    for sign in (1.0, -1.0):
        check(graph, [sign * np.array([0.5, 1.0, 0.25]), np.array([1.0, -2.0, 0.5])], {})


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("use", ["carry", "rows", "both"])
def test_scan_runs_backwards(reverse: bool, use: str) -> None:
    start, rows, w = leaf("start", S), leaf("rows"), leaf("w", S)
    carry, item, fixed = leaf("c", S), leaf("i", S), leaf("f", S)
    new = NODES.sin(carry * fixed + item)
    body = Graph((carry, item, fixed), (new, NODES.tanh(new * fixed)))
    both = NODES.scan(start, rows, w, body=body, carried=1, scanned=1, length=3, reverse=reverse)
    parts = {"carry": NODES.get(both, index=0), "rows": total(NODES.get(both, index=1))}
    loss = parts["carry"] + parts["rows"] * 2.0 if use == "both" else parts[use]
    graph = Graph((start, rows, w), (loss,))
    args = [np.array(0.4), np.array([0.1, -0.7, 1.3]), np.array(0.8)]
    first = check(graph, args, {})
    scans = [n for n in first.nodes if n.op.name == "scan"]
    assert len(scans) == 2, "the forward scan runs once, the backward one beside it"
    second = Graph(first.inputs, (first.outputs[3] * first.outputs[1],))
    check(second, args, {})


def test_scan_with_integers_and_nothing_stacked() -> None:
    start, count = leaf("start"), input_node("n", TensorType(int64, ()))
    carry, i = leaf("c"), input_node("i", TensorType(int64, ()))
    body = Graph((carry, i), (NODES.sin(carry) * NODES.cast(i, dtype=float64), NODES.add(i, 1)))
    both = NODES.scan(start, count, body=body, carried=2, scanned=0, length=4, reverse=False)
    graph = Graph((start, count), (total(NODES.get(both, index=0)),))
    check(graph, [np.array([0.3, 1.0, -0.4]), np.array(2)], {})


def test_a_scan_inside_a_cond() -> None:
    x, a, c, i = leaf("x"), leaf("a"), leaf("c", S), leaf("i", S)
    body = Graph((c, i), (NODES.tanh(c * i),))
    zero = NODES.reduce_sum(a, axes=(0,))
    inner = NODES.scan(zero, a, body=body, carried=1, scanned=1, length=3, reverse=False)
    then = Graph((a,), (NODES.get(inner, index=0),))
    otherwise = Graph((a,), (total(a),))
    chosen = NODES.cond(NODES.gt(total(x), 0.0), x, then=then, otherwise=otherwise)
    graph = Graph((x,), (NODES.get(chosen, index=0),))
    for sign in (1.0, -1.0):
        check(graph, [sign * np.array([0.5, 1.0, 0.25])], {})


def test_while_loops_have_no_reverse_mode() -> None:
    x, a = leaf("x", S), leaf("a", S)
    condition, body = Graph((a,), (NODES.lt(a, 10.0),)), Graph((a,), (a * 2.0,))
    both = NODES.while_loop(x, condition=condition, body=body, carried=1)
    with pytest.raises(GraphError, match=r"while_loop has no reverse mode.*use scan"):
        differentiate(Graph((x,), (NODES.get(both, index=0),)), "x")


# ---- edges --------------------------------------------------------------------------------------


def test_gradients_stop_where_told_and_where_nothing_flows() -> None:
    x, y, z = leaf("x"), leaf("y"), leaf("z")
    loss = total(NODES.stop_gradient(NODES.sin(x)) * x + NODES.floor(y))
    result = differentiate(Graph((x, y, z), (loss,)), [0, "y", 2])
    args = [np.array([0.3, 0.5, 0.7])] * 3
    _, dx, dy, dz = interpret(result, args).outputs
    np.testing.assert_allclose(dx, np.sin(args[0]))
    assert not dy.any() and not dz.any() and dz.shape == (3,)


def test_an_output_that_is_an_input() -> None:
    x = leaf("x", S)
    result = differentiate(Graph((x,), (x,)), "x")
    assert interpret(result, [np.array(3.0)]).outputs == (3.0, 1.0)


def test_places_of_the_forward_go_to_the_backward() -> None:
    x = leaf("x", S)
    y = NODES.sin(x)
    result = differentiate(Graph((x,), (y,), locations={y: Location("m.py", 7)}), "x")
    made = [n for n in result.nodes if n.inputs and n is not y]
    assert made and all(result.locations[n] == Location("m.py", 7) for n in made)


@pytest.mark.parametrize(
    ("wrt", "of", "message"),
    [
        ("v", 0, "'v' is no input or state of graph 'main', which has 'x', 'n', 'w', 'x'"),
        ("x", 0, "'x' is both an input and a state"),
        (7, 0, "there is no input 7; the graph has 2"),
        ("n", 0, r"'n' has type i64\[\]; only floats"),
        ("w", 5, "there is no output 5"),
        ("w", 1, r"output 1 has type f64\[3\]; only a floating-point scalar"),
        ("w", 2, r"output 2 has type i64\[\]"),
        ("w", "loss", "no output of graph 'main' is called 'loss'"),
    ],
)
def test_mistakes_are_explained(wrt: str | int, of: int | str, message: str) -> None:
    x, n, w = leaf("x"), input_node("n", TensorType(int64, ())), state_node("w", V)
    graph = Graph((x, n), (total(w * x), w, n), (w, state_node("x", V)))
    with pytest.raises(GraphError, match=message):
        differentiate(graph, wrt, of)


def test_a_named_output() -> None:
    x = leaf("x")
    loss = total(x)
    graph = Graph((x,), (x, loss), names={loss: "loss"})
    assert interpret(differentiate(graph, 0, "loss"), [np.zeros(3)]).outputs[2].tolist() == [1] * 3
