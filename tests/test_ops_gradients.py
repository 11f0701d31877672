"""Gradient rules against finite differences in a random direction, to second order.

In double precision, by the interpreter; the walk over the graph is this
file's own, so that what is tested is the rules and their driver.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from op_cases import Case, cases, seed_of

from graphflow.ir.build import NODES, constant, emit, input_node, splat
from graphflow.ir.cotangent import operand_cotangent, unbroadcast
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node, topological
from graphflow.ir.op import NON_DIFFERENTIABLE, Application, all_ops, lookup
from graphflow.ir.types import TensorType, float64

STEP = 1e-5


def gradients(output: Node, wrt: Sequence[Node]) -> list[Node]:
    """The gradients of a scalar node, as nodes."""
    cotangents = {output: splat(1.0, output.tensor_type)}
    for node in reversed(topological([output])):
        ct = cotangents.get(node)
        if ct is None or not node.inputs:
            continue
        application = Application(node.inputs, node, node.attrs)
        for position, operand in enumerate(node.inputs):
            found = operand_cotangent(NODES, node.op, application, ct, position)
            if found is not None:
                assert found.type == operand.type, f"{node.op.name} operand {position}"
                held = cotangents.get(operand)
                cotangents[operand] = found if held is None else held + found
    return [cotangents.get(n, splat(0.0, n.tensor_type)) for n in wrt]


def total(value: Node) -> Node:
    """The sum of all elements."""
    return NODES.reduce_sum(value, axes=tuple(range(len(value.shape))))


class Scalar:
    """A weighted sum of a case's result, as a function of its floating-point operands."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(seed_of(case.label) + 1)
        self.leaves: list[Node] = []
        self.arrays: list[np.ndarray] = []
        operands = []
        for i, array in enumerate(case.arrays):
            if array.dtype.kind == "f":
                leaf = input_node(f"x{i}", TensorType(float64, array.shape))
                self.leaves.append(leaf)
                self.arrays.append(array)
                operands.append(leaf)
            else:
                operands.append(constant(array))
        result = emit(case.op, *operands, **case.attrs)
        if result.dtype.is_complex:
            result = emit("view_as_real", result)
        weights = constant(rng.uniform(0.5, 1.5, result.shape))
        self.value = total(result * weights)
        self.directions = [rng.standard_normal(a.shape) for a in self.arrays]
        self.others = [rng.standard_normal(a.shape) for a in self.arrays]

    def at(self, node: Node, shift: float, along: Sequence[np.ndarray]) -> float:
        """``node`` at the operands moved by ``shift`` along a direction."""
        graph = Graph(inputs=tuple(self.leaves), outputs=(node,))
        moved = [a + shift * d for a, d in zip(self.arrays, along)]
        (found,) = interpret(graph, moved).outputs
        return float(found)

    def slope(self, of: Node, along: Sequence[np.ndarray]) -> Node:
        """The derivative of ``of`` in a direction."""
        parts = [total(g * constant(d)) for g, d in zip(gradients(of, self.leaves), along)]
        result = parts[0]
        for part in parts[1:]:
            result = result + part
        return result

    def check(self, of: Node, along: Sequence[np.ndarray], label: str) -> None:
        """The rule's derivative of ``of`` equals the measured one."""
        derived = self.at(self.slope(of, along), 0.0, along)
        measured = (self.at(of, STEP, along) - self.at(of, -STEP, along)) / (2 * STEP)
        scale = max(1.0, abs(self.at(of, 0.0, along)))
        assert derived == pytest.approx(measured, rel=2e-6, abs=2e-6 * scale), label


def smooth_cases() -> list[Case]:
    """Cases with data on which differentiation is defined."""
    return [
        case
        for op in all_ops()
        if op.tests.gradient and op.vjp is not NON_DIFFERENTIABLE
        for case in cases(op, ("f64",))
        if all(np.isfinite(a).all() for a in case.arrays)
        and not at_a_step(case)
        and any(a.dtype.kind == "f" for a in case.arrays)
        and case.attrs.get("dtype", float64).is_floating_point
        and case.attrs.get("dtype", float64).itemsize == 8
    ]


def at_a_step(case: Case) -> bool:
    """Rounding jumps at halves."""
    return case.op.name == "round" and bool((case.arrays[0] % 1 == 0.5).any())


SMOOTH = smooth_cases()


@pytest.mark.parametrize("case", SMOOTH, ids=[c.label for c in SMOOTH])
def test_gradient_to_second_order(case: Case) -> None:
    scalar = Scalar(case)
    label = f"{case.label}, seed {seed_of(case.label)}"
    scalar.check(scalar.value, scalar.directions, f"{label}: first order")
    slope = scalar.slope(scalar.value, scalar.directions)
    scalar.check(slope, scalar.others, f"{label}: second order")


def test_every_differentiable_operation_is_tried() -> None:
    tried = {case.op.name for case in SMOOTH}
    # Complex operands are tried in test_complex.py, host operations in test_linalg.py, test_fft.py.
    wanted = {op.name for op in all_ops() if op.tests.gradient and "f64" in op.tests.dtypes}
    assert wanted - tried == set()


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((2, 3), (3,)), ((2, 3), (1, 3)), ((2, 3), ()), ((4, 2, 3), (2, 1)), ((2, 3), (2, 3)),
     ((1, 3), (2, 3)), ((0, 3), (1, 3)), ((5, 1, 3), (4, 3))],
)  # fmt: skip
def test_unbroadcast_is_the_transpose_of_broadcasting(shape: Any, wanted: Any) -> None:
    ct = np.arange(float(np.prod(shape))).reshape(shape) + 1
    leaf = input_node("ct", TensorType(float64, shape))
    found = Graph(inputs=(leaf,), outputs=(unbroadcast(NODES, leaf, wanted),)).run(ct)[0]
    assert found.shape == wanted
    probe = np.random.default_rng(0).standard_normal(wanted)
    full = np.broadcast_shapes(shape, wanted)
    assert np.sum(found * probe) == pytest.approx(
        np.sum(np.broadcast_to(ct, full) * np.broadcast_to(probe, full))
    )


# ---- PyTorch's conventions where no derivative exists --------------------------------

NAN = float("nan")
CONVENTIONS: list[tuple[str, dict[str, Any], list[list[float]], list[list[float]]]] = [
    ("relu", {}, [[0.0, -1.0, 1.0, NAN]], [[0, 0, 1, 1]]),
    ("abs", {}, [[0.0, -1.0, 1.0, NAN]], [[0, -1, 1, 0]]),
    ("sign", {}, [[0.0, -1.0, NAN]], [[0, 0, 0]]),
    ("floor", {}, [[1.0, NAN, np.inf]], [[0, 0, 0]]),
    ("maximum", {}, [[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]], [[0, 0.5, 1], [1, 0.5, 0]]),
    ("minimum", {}, [[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]], [[1, 0.5, 0], [0, 0.5, 1]]),
    ("maximum", {}, [[1.0, NAN], [NAN, 1.0]], [[1, 1], [1, 1]]),
    ("reduce_max", {"axes": (0,)}, [[1.0, 1.0, 2.0, 2.0]], [[0, 0, 0.5, 0.5]]),
    ("reduce_min", {"axes": (0,)}, [[1.0, 1.0, 2.0, 2.0]], [[0.5, 0.5, 0, 0]]),
    ("reduce_prod", {"axes": (0,)}, [[0.0, 2.0, 3.0]], [[6, 0, 0]]),
    ("reduce_prod", {"axes": (0,)}, [[0.0, 2.0, 0.0]], [[0, 0, 0]]),
    ("pow", {}, [[0.0, 2.0, -3.0, 0.0], [0.0, 2.0, 2.0, 3.0]],
     [[0, 4, -6, 0], [0, 4 * np.log(2), NAN, 0]]),
    ("remainder", {}, [[5.0, -7.0], [3.0, 2.0]], [[1, 1], [-1, 4]]),
]  # fmt: skip


@pytest.mark.parametrize("row", CONVENTIONS, ids=[f"{c[0]}-{i}" for i, c in enumerate(CONVENTIONS)])
def test_conventions_at_kinks(row: Any) -> None:
    name, attrs, operands, expected = row
    leaves = [input_node(f"x{i}", TensorType(float64, (len(v),))) for i, v in enumerate(operands)]
    result = emit(name, *leaves, **attrs)
    graph = Graph(inputs=tuple(leaves), outputs=tuple(gradients(total(result), leaves)))
    found = graph.run(*[np.array(v) for v in operands])
    for got, want in zip(found, expected):
        np.testing.assert_allclose(got, want, 1e-12)


def test_a_masked_choice_stops_infinite_cotangents() -> None:
    x = input_node("x", TensorType(float64, (2,)))
    safe = NODES.where(NODES.gt(x, 0.0), NODES.log(x), constant(np.zeros(2)))
    graph = Graph(inputs=(x,), outputs=tuple(gradients(total(safe), [x])))
    np.testing.assert_allclose(graph.run(np.array([2.0, -1.0]))[0], [0.5, 0.0])


def test_integer_operands_and_conditions_get_no_cotangent() -> None:
    x, index = input_node("x", TensorType(float64, (3,))), constant(np.array([0, 2]))
    taken = NODES.take(x, index, axis=0)
    application = Application(taken.inputs, taken, taken.attrs)
    assert operand_cotangent(NODES, taken.op, application, taken, 1) is None
    assert operand_cotangent(NODES, lookup("eq"), Application((x, x), x, {}), x, 0) is None
