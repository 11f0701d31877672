"""The interpreter: binding, symbols, state, regions, double precision, deep graphs."""

import numpy as np
import pytest

from graphflow.errors import DTypeError, GraphError, ShapeError
from graphflow.ir.build import NODES, constant, emit, input_node, splat, state_node
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.op import lookup
from graphflow.ir.types import TensorType, TupleType, bfloat16, bool_, float32, float64, int64

B = symbol("batch")


def linear() -> Graph:
    """``relu(x @ w + b)``, and ``w`` a little smaller afterwards."""
    x = input_node("x", TensorType(float32, (B, 4)))
    w = state_node("w", TensorType(float32, (4, 2)))
    b = state_node("b", TensorType(float32, (2,)))
    return Graph(
        inputs=(x,), state=(w, b), outputs=(NODES.relu(NODES.matmul(x, w) + b),),
        updates=((w, w * 0.5),), name="linear",
    )  # fmt: skip


def values(batch: int = 3) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    state = {"w": rng.standard_normal((4, 2), np.float32), "b": np.ones(2, np.float32)}
    return rng.standard_normal((batch, 4), np.float32), state


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_outputs_and_updates(batch: int) -> None:
    x, state = values(batch)
    before = {name: array.copy() for name, array in state.items()}
    result = interpret(linear(), [x], state)
    np.testing.assert_allclose(result.outputs[0], np.maximum(x @ state["w"] + state["b"], 0), 1e-6)
    np.testing.assert_array_equal(result.state["w"], state["w"] * np.float32(0.5))
    np.testing.assert_array_equal(result.state["b"], state["b"])
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array)  # nothing is written in place


def test_updates_read_the_old_state() -> None:
    a, b = (state_node(n, TensorType(float32, ())) for n in "ab")
    swapped = Graph(inputs=(), state=(a, b), outputs=(), updates=((a, b), (b, a)))
    after = interpret(swapped, [], {"a": np.float32(1), "b": np.float32(2)}).state
    assert (float(after["a"]), float(after["b"])) == (2.0, 1.0)


def test_double_precision_computes_every_float_in_double() -> None:
    x = input_node("x", TensorType(bfloat16, (3,)))
    half = NODES.cast(x * 0.1, dtype=float32)
    count = NODES.cast(NODES.floor(x), dtype=int64)
    graph = Graph(inputs=(x,), outputs=(half, count, NODES.gt(x, 0.0)))
    array = np.array([1.0, 2.5, -3.0]).astype(bfloat16.numpy)
    plain, exact = (interpret(graph, [array], precision=p).outputs for p in (None, "f64"))
    assert [a.dtype.name for a in plain] == ["float32", "int64", "bool"]
    assert [a.dtype.name for a in exact] == ["float64", "int64", "bool"]
    tenth = float(np.array(0.1).astype(bfloat16.numpy))
    np.testing.assert_array_equal(exact[0], np.array([1.0, 2.5, -3.0]) * tenth)
    assert (exact[0] != plain[0]).any()
    with pytest.raises(GraphError, match="precision must be None or 'f64'"):
        interpret(graph, [array], precision="f16")


# ---- arguments that do not fit -------------------------------------------------------


def test_argument_errors_name_the_input() -> None:
    x, state = values()
    graph = linear()
    with pytest.raises(GraphError, match=r"'linear' takes 1 arguments \(x\), not 2"):
        interpret(graph, [x, x], state)
    with pytest.raises(GraphError, match="needs a value for state w, b"):
        interpret(graph, [x], {})
    with pytest.raises(DTypeError, match=r"input 'x' of type f32\[batch,4\] got .* int64"):
        interpret(graph, [x.astype(np.int64)], state)
    with pytest.raises(ShapeError, match=r"input 'x' .* got shape \[4\], expected 2 dimensions"):
        interpret(graph, [x[0]], state)
    with pytest.raises(ShapeError, match=r"got shape \[3, 3\], expected shape \[3, 4\]"):
        interpret(graph, [x[:, :3]], state)
    with pytest.raises(ShapeError, match=r"state 'b' .* got shape \[3\]"):
        interpret(graph, [x], {**state, "b": np.ones(3, np.float32)})


def test_a_symbol_has_one_size_and_polynomials_follow() -> None:
    x = input_node("x", TensorType(float32, (B,)))
    y = input_node("y", TensorType(float32, (B * 2 + 1,)))
    graph = Graph(inputs=(y, x), outputs=(NODES.concatenate(x, y, axis=0),))
    ones = np.ones(7, np.float32)
    assert interpret(graph, [ones, ones[:3]]).outputs[0].shape == (10,)
    with pytest.raises(ShapeError, match=r"input 'y' .* got shape \[7\], expected shape \[9\]"):
        interpret(graph, [ones, ones[:4]])
    z = input_node("z", TensorType(float32, (B,)))
    both = Graph(inputs=(x, z), outputs=(x + z,))
    with pytest.raises(ShapeError, match=r"input 'z' .*'batch' = 3, as before"):
        interpret(both, [ones[:3], ones[:4]])
    free = Graph(inputs=(y,), outputs=(y,))
    with pytest.raises(ShapeError, match="'batch' has no size"):
        interpret(free, [ones])


def test_symbolic_attributes_take_their_sizes() -> None:
    x = input_node("x", TensorType(float32, (B, 2)))
    rows = emit("iota", shape=(B, 2), axis=0, dtype=float32)
    outputs = (
        x + rows,
        NODES.reshape(x, shape=(B * 2,)),
        splat(3.0, TensorType(float32, (B, B))),
        NODES.slice(x, starts=(1, 0), limits=(B, 2), steps=(1, 1)),
    )
    found = interpret(Graph(inputs=(x,), outputs=outputs), [np.zeros((3, 2), np.float32)]).outputs
    assert [a.shape for a in found] == [(3, 2), (6,), (3, 3), (2, 2)]
    np.testing.assert_array_equal(found[0][:, 0], [0, 1, 2])


def test_undeclared_leaves_and_lying_references_are_found() -> None:
    x = input_node("x", TensorType(float32, (2,)))
    with pytest.raises(GraphError, match=r"input 'x' .* is not declared"):
        interpret(Graph(inputs=(), outputs=(NODES.exp(x),)), [])
    from graphflow.ir.node import make_node

    wrong = make_node(lookup("exp"), (x,), {}, TensorType(float32, (3,)))
    with pytest.raises(
        GraphError, match=r"exp gave float32\[2\] where its type rule says f32\[3\]"
    ):
        interpret(Graph(inputs=(x,), outputs=(wrong,)), [np.zeros(2, np.float32)])


def test_no_warning_for_infinities_and_no_recursion_in_deep_graphs() -> None:
    x = input_node("x", TensorType(float64, ()))
    value = x
    for _ in range(50_000):
        value = value * 1.5
    (found,) = interpret(Graph(inputs=(x,), outputs=(value,)), [np.float64(1.0)]).outputs
    assert found == np.inf


# ---- regions -------------------------------------------------------------------------


def leaves(*types: TensorType) -> tuple:
    return tuple(input_node(f"a{i}", t) for i, t in enumerate(types))


VECTOR, SCALAR, FLAG = TensorType(float32, (3,)), TensorType(float32, ()), TensorType(bool_, ())


def item(node: object, index: int) -> object:
    return NODES.get(node, index=index)


def test_cond_runs_one_branch() -> None:
    (a,) = leaves(VECTOR)
    then, otherwise = Graph((a,), (NODES.exp(a), a)), Graph((a,), (NODES.neg(a), a))
    flag, x = input_node("flag", FLAG), input_node("x", VECTOR)
    both = NODES.cond(flag, x, then=then, otherwise=otherwise)
    assert both.type == TupleType((VECTOR, VECTOR))
    graph = Graph((flag, x), (item(both, 0), item(both, 1)))
    ones = np.ones(3, np.float32)
    np.testing.assert_allclose(interpret(graph, [True, ones]).outputs[0], np.exp(ones), 1e-6)
    np.testing.assert_array_equal(interpret(graph, [np.array(False), ones]).outputs[0], -ones)
    exact = interpret(graph, [True, ones], precision="f64").outputs[0]
    np.testing.assert_array_equal(exact, np.exp(np.ones(3)))


def test_while_loop_collatz() -> None:
    whole = TensorType(int64, ())
    n, steps, one = leaves(whole, whole, whole)
    condition = Graph((n, steps, one), (NODES.gt(n, one),))
    odd = NODES.eq(NODES.remainder(n, 2), 1)
    following = NODES.where(odd, NODES.add(NODES.mul(n, 3), 1), NODES.floor_divide(n, 2))
    body = Graph((n, steps, one), (following, NODES.add(steps, one)))
    start = input_node("start", whole)
    loop = NODES.while_loop(
        start, constant(0), constant(1), condition=condition, body=body, carried=2
    )
    graph = Graph((start,), (item(loop, 0), item(loop, 1)))
    assert [int(v) for v in interpret(graph, [np.array(27)]).outputs] == [1, 111]
    assert [int(v) for v in interpret(graph, [np.array(1)]).outputs] == [1, 0]


def running_sum(length: object, reverse: bool) -> Graph:
    carry, x, factor = leaves(SCALAR, SCALAR, SCALAR)
    total = carry + x * factor
    body = Graph((carry, x, factor), (total, total))
    xs = input_node("xs", TensorType(float32, (length,)))
    scan = NODES.scan(
        constant(np.float32(10)), xs, constant(np.float32(2)), body=body, carried=1, scanned=1,
        length=length, reverse=reverse,
    )  # fmt: skip
    return Graph((xs,), (item(scan, 0), item(scan, 1)))


@pytest.mark.parametrize("length", [3, symbol("steps")])
def test_scan_carries_and_stacks(length: object) -> None:
    xs = np.array([1, 2, 3], np.float32)
    last, sums = interpret(running_sum(length, False), [xs]).outputs
    assert float(last) == 22.0
    np.testing.assert_array_equal(sums, [12, 16, 22])
    last, sums = interpret(running_sum(length, True), [xs]).outputs
    assert float(last) == 22.0
    np.testing.assert_array_equal(sums, [22, 20, 16])


def test_scan_of_nothing() -> None:
    last, sums = interpret(running_sum(symbol("steps"), False), [np.zeros(0, np.float32)]).outputs
    assert float(last) == 10.0
    assert (sums.shape, sums.dtype.name) == ((0,), "float32")


@pytest.mark.parametrize("outputs", [1, 2])
def test_fused_means_its_body(outputs: int) -> None:
    a, b = leaves(VECTOR, SCALAR)
    body = Graph((a, b), (NODES.tanh(a * b), NODES.reduce_sum(a, axes=(0,)))[:outputs])
    x, y = input_node("x", VECTOR), input_node("y", SCALAR)
    fused = NODES.fused(x, y, kind="loop", body=body)
    found = (fused,) if outputs == 1 else (item(fused, 0), item(fused, 1))
    array = np.array([1.0, 2.0, 3.0], np.float32)
    results = interpret(Graph((x, y), found), [array, np.float32(0.5)]).outputs
    np.testing.assert_allclose(results[0], np.tanh(array * 0.5), 1e-6)
    assert outputs == 1 or float(results[1]) == 6.0


def test_regions_that_do_not_fit_are_refused() -> None:
    (a,) = leaves(VECTOR)
    same, other = Graph((a,), (a,)), Graph((a,), (NODES.reduce_sum(a, axes=(0,)),))
    flag, x = input_node("flag", FLAG), input_node("x", VECTOR)
    with pytest.raises(
        GraphError, match=r"otherwise yields \(f32\[\]\), but must yield \(f32\[3\]"
    ):
        NODES.cond(flag, x, then=same, otherwise=other)
    with pytest.raises(GraphError, match=r"then takes \(f32\[3\]\), but is given \(f32\[3\], f32"):
        NODES.cond(flag, x, x, then=same, otherwise=same)
    with pytest.raises(DTypeError, match=r"condition must be bool\[\], not f32\[3\]"):
        NODES.cond(x, x, then=same, otherwise=same)
    with pytest.raises(GraphError, match="body must be a graph"):
        NODES.fused(x, kind="loop", body=3)
    with pytest.raises(GraphError, match="index 1 is not in 0 … 0"):
        item(NODES.cond(flag, x, then=same, otherwise=same), 1)
    with pytest.raises(GraphError, match="take items out with get"):
        NODES.exp(NODES.cond(flag, x, then=same, otherwise=same))
    state = state_node("s", VECTOR)
    with pytest.raises(GraphError, match="then has state"):
        NODES.cond(flag, x, then=Graph((a,), (a,), state=(state,)), otherwise=same)


def test_regions_know_the_sizes_of_their_graph() -> None:
    """A body may make a tensor of a symbolic extent that none of its inputs has."""
    (a,) = leaves(SCALAR)
    filled = Graph((a,), (NODES.expand(a, shape=(B,)),))
    x = input_node("x", TensorType(float32, (B,)))
    chosen = NODES.cond(
        NODES.gt(NODES.reduce_sum(x, axes=(0,)), 0.0), constant(np.float32(2)),
        then=filled, otherwise=filled,
    )  # fmt: skip
    (found,) = interpret(Graph((x,), (item(chosen, 0),)), [np.ones(3, np.float32)]).outputs
    np.testing.assert_array_equal(found, [2, 2, 2])
