"""Complex tensors: arithmetic on parts, views, gradients, compiled programs."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_cases import draw, samples, seed_of

import graphflow as gf
from graphflow.autograd import gradcheck, gradgradcheck
from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.op import OpDef, all_ops
from graphflow.ir.types import TensorType, complex64, complex128, from_numpy_dtype
from graphflow.passes.split_complex import SplitComplex

SPLIT = [op for op in all_ops() if op.parts is not None and op.name not in ("cast", "pad")]


def numbers(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.parametrize("op", SPLIT, ids=lambda op: op.name)
def test_parts_are_the_complex_operation(op: OpDef) -> None:
    """The rule on real numbers against NumPy's complex numbers, in double precision."""
    for number, sample in enumerate(samples(op)):
        label = f"{op.name}-c128-{number}"
        arrays = draw(op, complex128, sample, label)
        assert arrays is not None
        if not all(np.isfinite(a).all() for a in arrays):
            continue
        leaves = tuple(
            input_node(f"x{i}", TensorType(from_numpy_dtype(a.dtype), a.shape))
            for i, a in enumerate(arrays)
        )
        graph = Graph(inputs=leaves, outputs=(emit(op, *leaves, **sample.attrs),))
        split = SplitComplex().run(graph)
        moving = {"view_as_real", "view_as_complex", "input", "constant", "concatenate"}
        for node in split.nodes:
            complex_ = any(n.dtype.is_complex for n in (node, *node.inputs))
            assert not complex_ or node.op.name in moving, f"{label}: {node!r}"
        (found,), (expected,) = (interpret(g, arrays).outputs for g in (split, graph))
        assert found.dtype == expected.dtype and found.shape == expected.shape, label
        np.testing.assert_allclose(found, expected, 1e-12, 1e-12, f"{label} {seed_of(label)}")


@pytest.mark.parametrize("z", [3e300 + 4e300j, 3e-320 + 4e-320j, 0j, complex("inf+1j"), -0.0 + 2j])
def test_absolute_value_and_quotient_do_not_overflow_needlessly(z: complex) -> None:
    x = input_node("x", TensorType(complex128, (1,)))
    graph = SplitComplex().run(Graph(inputs=(x,), outputs=(emit("abs", x), emit("div", x, x))))
    size, ratio = interpret(graph, (np.array([z]),)).outputs
    assert size[0] == pytest.approx(abs(z), rel=1e-3)
    if z and not cmath.isinf(z):
        assert ratio[0] == pytest.approx(1.0, rel=1e-3)


# ---- the front -----------------------------------------------------------------------


def test_promotion() -> None:
    x = gf.tensor([1.0, 2.0])
    assert (x * 1j).dtype is gf.complex64
    assert (x.double() * 1j).dtype is gf.complex128
    assert (gf.tensor([1, 2]) + 1j).dtype is gf.complex64
    assert (gf.tensor([1j]) + x.double()).dtype is gf.complex128
    assert (gf.tensor([1j]) + gf.tensor(2.0, dtype=gf.float64)).dtype is gf.complex64
    assert gf.tensor([1j]).to(gf.float32).tolist() == [0.0]
    assert gf.tensor([1j, 0]).bool().tolist() == [True, False]


def test_real_and_imag_are_views() -> None:
    z = gf.tensor([1 + 2j, 3 - 1j])
    z.real.fill_(7)
    gf.view_as_real(z)[1, 1] = 5
    assert z.tolist() == [7 + 2j, 7 + 5j]
    pairs = gf.tensor([[1.0, 2.0]])
    gf.view_as_complex(pairs).mul_(2)
    assert pairs.tolist() == [[2.0, 4.0]]
    assert pairs.real is pairs
    with pytest.raises(RuntimeError, match="imag"):
        gf.imag(pairs)
    with pytest.raises(RuntimeError, match="size 2"):
        gf.view_as_complex(gf.zeros(3))


def test_filled_parts_are_not_the_numbers_made_of_them() -> None:
    """A view of one value everywhere is that value, unless it is of another dtype."""
    compiled = gf.compile(lambda: (gf.view_as_complex(gf.zeros(3, 2)), gf.full((3,), 2j).real))
    whole, part = compiled()
    assert whole.dtype == gf.complex64 and whole.tolist() == [0j, 0j, 0j]
    assert part.dtype == gf.float32 and part.tolist() == [0.0, 0.0, 0.0]


def test_angles_at_the_origin_have_slope_zero() -> None:
    def slopes(y: Any, x: Any) -> Any:
        y, x = y.clone().requires_grad_(), x.clone().requires_grad_()
        z = gf.complex(y.detach(), x.detach()).requires_grad_()
        (gf.atan2(y, x).sum() + z.angle().sum()).backward()
        return y.grad, x.grad, z.grad

    y, x = gf.tensor([0.0, -0.0, 2.0, 0.0]), gf.tensor([0.0, 0.0, 0.0, -4.0])
    for run in (slopes, gf.compile(slopes)):
        dy, dx, dz = run(y, x)
        assert dy.tolist() == [0, 0, 0, -0.25] and dx.tolist() == [0, 0, -0.5, 0]
        assert dz.tolist() == [0, 0, 0.5j, 0.25]


def test_values_printed() -> None:
    assert repr(gf.tensor([1 + 2j, 3 - 1j])) == "tensor([1.+2.j, 3.-1.j])"
    assert repr(gf.tensor([1.5 + 2.25j, -3 - 1j])) == "tensor([ 1.5000+2.2500j, -3.0000-1.0000j])"


def loss(z: Any, w: Any) -> Any:
    a = gf.exp(z * (0.5 + 1j)) * z.conj() / (w + 3)
    b = gf.sqrt(z + 2) * gf.log(w + 4j) + gf.sin(z).sgn() * gf.cos(w)
    c = gf.matmul(gf.stack([z, w]), gf.stack([w, a]).mH)
    return (
        a.abs().sum()
        + b.angle().sum()
        + (c.imag * c.real).mean()
        + gf.polar(a.abs(), z.real).real.sum()
    )


def steepest(f: Callable[[np.ndarray], float], z: np.ndarray) -> np.ndarray:
    """dL/d(Re z) + i dL/d(Im z) by central differences."""
    found, step = np.zeros_like(z), 1e-6
    for place in np.ndindex(z.shape):
        for unit in (1, 1j):
            moved = [z.copy(), z.copy()]
            moved[0][place] += step * unit
            moved[1][place] -= step * unit
            found[place] += unit * (f(moved[0]) - f(moved[1])) / (2 * step)
    return found


def test_gradients_point_uphill() -> None:
    z, w = numbers(1, 3), numbers(2, 3)
    tz, tw = (gf.tensor(a, requires_grad=True) for a in (z, w))
    eager = gf.autograd.grad(loss(tz, tw), (tz, tw))
    want_z = steepest(lambda a: loss(gf.tensor(a), gf.tensor(w)).item(), z)
    want_w = steepest(lambda a: loss(gf.tensor(z), gf.tensor(a)).item(), w)
    np.testing.assert_allclose(eager[0].numpy(), want_z, 1e-6, 1e-7)
    np.testing.assert_allclose(eager[1].numpy(), want_w, 1e-6, 1e-7)


def test_compiled_gradients_are_the_eager_ones() -> None:
    def gradients(z: Any, w: Any) -> Any:
        value = (gf.exp(z) * z.conj() / (w + 3)).abs().sum()
        return value, *gf.autograd.grad(value, (z, w))

    tensors = [gf.tensor(numbers(i, 3), requires_grad=True) for i in (1, 2)]
    compiled = gf.compile(gradients)
    for one, other in zip(compiled(*tensors), gradients(*tensors), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), 1e-11, 1e-12)
    assert "host operations: none" in str(compiled.explain())


def test_second_order() -> None:
    z = gf.tensor(numbers(3, 4), requires_grad=True)
    (first,) = gf.autograd.grad((z * z * z.conj()).abs().sum(), z, create_graph=True)
    (second,) = gf.autograd.grad(first.abs().sum(), z)  # |z|^3: 3|z|z, then 6 z
    np.testing.assert_allclose(second.numpy(), 6 * z.detach().numpy(), 1e-12)


def test_compiled_programs_move_complex_numbers() -> None:
    @gf.compile
    def moved(z: Any) -> Any:
        turned = z.t()
        joined = gf.cat([turned, turned + 1], 1)
        return turned, joined[1:, ::2], z.reshape(-1).flip(0), gf.where(z.real > 0, z, 0), z.sum(0)

    z = numbers(4, 3, 5).astype(np.complex64)
    turned, joined, flat, positive, total = (t.numpy() for t in moved(gf.tensor(z)))
    np.testing.assert_array_equal(turned, z.T)
    np.testing.assert_array_equal(joined, np.concatenate([z.T, z.T + 1], 1)[1:, ::2])
    np.testing.assert_array_equal(flat, z.reshape(-1)[::-1])
    np.testing.assert_array_equal(positive, np.where(z.real > 0, z, 0))
    np.testing.assert_allclose(total, z.sum(0), 1e-6)
    assert moved(gf.tensor(z))[0].dtype is complex64


def test_numbers_without_an_order_are_refused() -> None:
    z = gf.tensor([1 + 2j, 3j])
    for call in (
        lambda: z < z, lambda: z.max(), lambda: z.sort(), lambda: gf.relu(z), lambda: z.floor(),
        lambda: z.sign(), lambda: gf.maximum(z, z), lambda: z.clamp(0, 1), lambda: z % 2,
    ):  # fmt: skip
        with pytest.raises((RuntimeError, TypeError)):
            call()


def test_finite_and_infinite_parts() -> None:
    z = gf.tensor([1 + 2j, complex("inf+1j"), complex("1+nanj"), complex("nan-infj")])
    assert gf.isfinite(z).tolist() == [True, False, False, False]
    assert gf.isinf(z).tolist() == [False, True, False, True]
    assert gf.isnan(z).tolist() == [False, False, True, True]
    assert z.real.cfloat().dtype is gf.complex64 and z.cdouble().dtype is gf.cdouble


def test_compiled_results_that_show_an_argument() -> None:
    x = gf.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert gf.compile(gf.view_as_complex)(x).tolist() == [1 + 2j, 3 + 4j]
    z = gf.compile(gf.view_as_complex)(x)
    assert gf.compile(lambda z: (z.imag, gf.view_as_real(z)))(z)[0].tolist() == [2.0, 4.0]
    ones = gf.ones(2, dtype=gf.complex64)
    slope = gf.compile(lambda x, c: gf.autograd.grad(gf.view_as_complex(x), x, c)[0])
    assert slope(x.requires_grad_(), ones * 2j).tolist() == [[0.0, 2.0], [0.0, 2.0]]


@pytest.mark.parametrize(
    "function",
    [
        lambda z, w: z**w, lambda z, w: z**2 + 2**w, lambda z, w: gf.exp2(z) / gf.log2(w),
        lambda z, w: gf.log10(z) * gf.sigmoid(w), lambda z, w: gf.rsqrt(z) - gf.tanh(w),
        lambda z, w: gf.log1p(z) + gf.expm1(w), lambda z, w: gf.cumsum(z, 0).prod() * w.mean(),
        lambda z, w: gf.complex(z.abs(), w.real) * gf.polar(w.abs(), z.imag),
    ],
)  # fmt: skip
def test_gradients_of_functions(function: Callable[..., Any]) -> None:
    z, w = (gf.tensor(numbers(i, 3) + 2, requires_grad=True) for i in (5, 6))
    assert gradcheck(function, (z, w))
    assert gradgradcheck(function, (z, w), atol=1e-4)


def test_random_numbers() -> None:
    gf.manual_seed(0)
    z = gf.randn(4000, dtype=gf.complex64)
    assert z.dtype is gf.complex64 and abs(z.abs().square().mean().item() - 1) < 0.1
    assert gf.rand(3, dtype=gf.complex128).imag.min().item() >= 0


@pytest.mark.parametrize("name", ["acos", "asin", "asinh", "atan", "atanh"])
def test_inverse_functions_are_pythons_on_either_side_of_their_cuts(name: str) -> None:
    edges = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 2.0, 1e-8, -30.0]
    points = [complex(a, b) for a in edges for b in edges]
    poles = (1j, -1j) if name == "atan" else (1, -1) if name == "atanh" else ()
    z = np.array([p for p in points if p not in poles] + numbers(8, 40).tolist())
    expected = np.array([getattr(cmath, name)(complex(p)) for p in z])
    ours = getattr(gf, name)
    for ready in (ours, gf.compile(ours)):
        np.testing.assert_allclose(ready(gf.tensor(z)).numpy(), expected, 1e-13, 1e-300)
    assert gradcheck(ours, (gf.tensor(numbers(9, 5)).requires_grad_(),))
