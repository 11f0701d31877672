"""Attention as one operation: its reference, what it is made of, gradients to second order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.autograd import gradcheck, gradgradcheck
from graphflow.dispatch import apply_several
from graphflow.errors import DTypeError, GraphError, ShapeError
from graphflow.ir.build import NODES, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.op import OpDef, lookup
from graphflow.ir.types import DType, TensorType, dtype_named
from graphflow.passes.decompose import Decompose

OPS = [lookup("attend"), lookup("attend_gradient")]
TOLERANCES = {"f64": 1e-12, "f32": 2e-5, "f16": 4e-3, "bf16": 3e-2}


def operands(op: OpDef, shapes: Any, dtype: DType, attrs: Any, seed: int) -> list[np.ndarray]:
    """Random ones; those of a gradient that are made of others are."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    made = [rng.normal(size=shape).astype(dtype.numpy) for shape in shapes]
    if op is OPS[1]:
        made[3:5] = OPS[0].reference(*made[:3], **attrs)
    return made


def graph_of(op: OpDef, arrays: list[np.ndarray], attrs: Any) -> Graph:
    leaves = tuple(
        input_node(f"x{i}", TensorType(gf.tensor(a).dtype, a.shape)) for i, a in enumerate(arrays)
    )
    return Graph(inputs=leaves, outputs=NODES.several(op.name, *leaves, **attrs))


@pytest.mark.parametrize("short", TOLERANCES)
@pytest.mark.parametrize("op", OPS, ids=str)
def test_it_is_what_it_is_made_of(op: OpDef, short: str) -> None:
    for number, sample in enumerate(op.tests.samples):
        arrays = operands(op, sample.inputs, dtype_named(short), sample.attrs, number)
        graph = graph_of(op, arrays, sample.attrs)
        parts = Decompose().run(graph).verify("traced")
        assert not any(n.op.routine for n in parts.nodes)
        whole = interpret(graph, arrays).outputs
        for found, wanted in zip(interpret(parts, arrays).outputs, whole, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(
                found.astype(np.float64), wanted.astype(np.float64), rtol=0,
                atol=TOLERANCES[short] * max(1.0, np.abs(wanted.astype(np.float64)).max(initial=0)),
            )  # fmt: skip


@pytest.mark.parametrize("op", OPS, ids=str)
def test_programs_of_the_processor_have_kernels_for_its_parts(op: OpDef) -> None:
    sample = op.tests.samples[3]
    arrays = operands(op, sample.inputs, dtype_named("f32"), sample.attrs, 20)

    @gf.compile
    def step(*given: gf.Tensor) -> tuple[gf.Tensor, ...]:
        return apply_several(op, *given, **sample.attrs)

    found = step(*map(gf.tensor, arrays))
    assert step.explain().host_ops == ()
    for made, wanted in zip(found, op.reference(*arrays, **sample.attrs), strict=True):
        np.testing.assert_allclose(made.numpy(), wanted, rtol=2e-5, atol=2e-6)


def test_what_stays_is_asked_for_each() -> None:
    op, sample = OPS[0], OPS[0].tests.samples[2]
    graph = graph_of(op, operands(op, sample.inputs, gf.float32, sample.attrs, 21), sample.attrs)
    asked = []

    def stays(node: Any) -> bool:
        asked.append(node.op)
        return True

    assert Decompose(stays=stays).run(graph) is graph and set(asked) == {op}
    assert Decompose(keep=frozenset(["attend"])).run(graph) is graph


@pytest.mark.parametrize("causal", [False, True])
def test_gradients(causal: bool) -> None:
    rng = np.random.default_rng(22)
    shapes = [(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 2)]
    given = [gf.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes]

    def both(*x: gf.Tensor) -> Any:
        return apply_several("attend", *x, scale=0.7, causal=causal)

    assert gradcheck(both, given) and gradgradcheck(both, given, atol=1e-4)
    assert gradgradcheck(lambda *x: both(*x)[0], given, atol=1e-4)

    def traced(*x: gf.Tensor) -> Any:
        out, logs = both(*x)
        return gf.autograd.grad(out.square().sum() + logs.square().sum(), x)

    for found, wanted in zip(gf.compile(traced)(*given), traced(*given), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_pytorchs_attention(causal: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(23)
    arrays = [rng.normal(size=(2, 3, 6, 8)) for _ in range(3)]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    wanted = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal)
    wanted.square().sum().backward()
    ours = [gf.tensor(a, requires_grad=True) for a in arrays]
    found = apply_several("attend", *ours, scale=8**-0.5, causal=causal)[0]
    found.square().sum().backward()
    np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), rtol=1e-12)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_errors_say_what_is_wrong() -> None:
    x = gf.zeros(1, 2, 3, 4)
    attrs = {"scale": 1.0, "causal": False}
    with pytest.raises(ShapeError, match=r"attend\(.*equal features"):
        apply_several("attend", x, gf.zeros(1, 2, 3, 5), x, **attrs)
    with pytest.raises(ShapeError, match="batch, heads, positions, features"):
        gf.compile(lambda y: apply_several("attend", y, y, y, **attrs))(x[0])
    with pytest.raises(DTypeError, match="different dtypes"):
        gf.compile(lambda y: apply_several("attend", y, y, y.double(), **attrs))(x)
    with pytest.raises(ShapeError, match="no key to look at"):
        empty = gf.zeros(1, 2, 0, 4)
        gf.compile(lambda y: apply_several("attend", y, empty, empty, **attrs))(x)
    with pytest.raises(GraphError, match="scale must be a float"):
        gf.compile(lambda y: apply_several("attend", y, y, y, scale=1, causal=False))(x)
