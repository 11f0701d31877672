"""Linear algebra: values against NumPy, gradients to second order, errors, compiled programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.autograd import gradcheck, gradgradcheck
from graphflow.ir.op import Kind, all_ops

L = gf.linalg


def random(seed: int, *shape: int, kind: str = "f") -> np.ndarray:
    """Well-conditioned: 3 on the diagonal of every matrix."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if kind == "c":
        x = x + 1j * rng.normal(size=shape)
    if len(shape) > 1:
        short = range(min(shape[-2:]))
        x[..., short, short] += 3
    return x


def leaf(array: np.ndarray) -> gf.Tensor:
    return gf.tensor(array, requires_grad=True)


def hermitian(a: Any) -> Any:
    return a @ a.mH


def unsigned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Results that do not depend on the signs or phases that vectors are free to have."""
    return lambda *args: tuple(out.abs() for out in function(*args))


GRADIENTS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "cholesky": (lambda a: L.cholesky(hermitian(a)), ((2, 3, 3),)),
    "cholesky_upper": (lambda a: L.cholesky(hermitian(a), upper=True), ((3, 3),)),
    "cholesky_solve": (lambda b, a: gf.cholesky_solve(b, a.tril()), ((3, 2), (3, 3))),
    "cholesky_inverse": (lambda a: gf.cholesky_inverse(a.tril()), ((3, 3),)),
    "lu": (lambda a: L.lu(a)[1:], ((3, 3),)),
    "lu_wide": (lambda a: L.lu(a)[1:], ((2, 4),)),
    "lu_tall": (lambda a: L.lu(a)[1:], ((4, 2),)),
    "lu_solve": (lambda a, b: L.lu_solve(*L.lu_factor(a), b, adjoint=True), ((3, 3), (3, 2))),
    "qr": (lambda a: L.qr(a), ((2, 3, 3),)),
    "qr_tall": (lambda a: L.qr(a), ((4, 2),)),
    "qr_wide": (lambda a: L.qr(a, mode="complete"), ((2, 4),)),
    "eigh": (unsigned(lambda a: L.eigh(hermitian(a))), ((3, 3),)),
    "eigvalsh": (lambda a: L.eigvalsh(hermitian(a)), ((2, 3, 3),)),
    "eig": (unsigned(lambda a: L.eig(a)), ((3, 3),)),
    "svd": (unsigned(lambda a: L.svd(a, full_matrices=False)), ((3, 3),)),
    "svd_tall": (unsigned(lambda a: L.svd(a, full_matrices=False)), ((4, 2),)),
    "svd_wide": (unsigned(lambda a: L.svd(a, full_matrices=False)), ((2, 4),)),
    "svdvals": (lambda a: L.svdvals(a), ((2, 3, 4),)),
    "polar": (lambda a: L.polar(a), ((4, 3),)),
    "matrix_sqrth": (lambda a: L.matrix_sqrth(hermitian(a)), ((3, 3),)),
    "householder_product": (lambda a, t: L.householder_product(a, t), ((4, 3), (2,))),
    "solve": (lambda a, b: L.solve(a, b), ((3, 3), (2, 3, 2))),
    "solve_right": (lambda a, b: L.solve(a, b, left=False), ((3, 3), (2, 3))),
    "solve_triangular": (
        lambda a, b: L.solve_triangular(a, b, upper=True, unitriangular=True), ((3, 3), (3, 2)),
    ),
    "inv": (lambda a: L.inv(a), ((2, 3, 3),)),
    "pinv": (lambda a: L.pinv(a), ((3, 2),)),
    "pinv_wide": (lambda a: L.pinv(a), ((2, 3),)),
    "lstsq": (lambda a, b: L.lstsq(a, b).solution, ((4, 2), (4, 1))),
    "det": (lambda a: L.det(a), ((2, 3, 3),)),
    "slogdet": (lambda a: L.slogdet(a).logabsdet, ((3, 3),)),
    "matrix_exp": (lambda a: L.matrix_exp(a * 0.3), ((3, 3),)),
    "matrix_power": (lambda a: (L.matrix_power(a, 3), L.matrix_power(a, -2)), ((3, 3),)),
    "multi_dot": (lambda a, b, c: L.multi_dot([a, b, c]), ((2,), (2, 4), (4, 3))),
    "tensorinv": (lambda a: L.tensorinv(a.reshape(2, 2, 4)), ((4, 4),)),
    "tensorsolve": (lambda a, b: L.tensorsolve(a.reshape(2, 2, 4), b), ((4, 4), (2, 2))),
    "cond": (lambda a: (L.cond(a), L.cond(a, 1)), ((3, 3),)),
    "nuclear": (lambda a: L.matrix_norm(a, "nuc"), ((2, 3, 4),)),
    "matrix_norm": (lambda a: tuple(L.norm(a, p) for p in (1, -1, 2, -2, math.inf)), ((3, 3),)),
    "vector_norm": (lambda a: tuple(L.vector_norm(a, p, 0) for p in (2, 1, 3.5, -2)), ((3, 4),)),
    "vander": (lambda a: L.vander(a, N=3), ((4,),)),
    "cross": (lambda a, b: L.cross(a, b), ((2, 3), (1, 3))),
    "vecdot": (lambda a, b: L.vecdot(a, b), ((2, 3), (2, 3))),
}  # fmt: skip
REAL_ONLY = {"svd_wide", "matrix_norm", "vector_norm", "cond", "eig", "nuclear"}
FIRST_ORDER = {"eig", "svd_tall", "svd_wide", "eigh", "svd", "polar", "qr_wide", "matrix_norm"}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("kind", ["f", "c"])
def test_gradients(name: str, kind: str) -> None:
    if kind == "c" and name in REAL_ONLY:
        return
    function, shapes = GRADIENTS[name]
    inputs = [leaf(random(i + 1, *shape, kind=kind)) for i, shape in enumerate(shapes)]
    assert gradcheck(function, inputs)
    if kind == "f" and name not in FIRST_ORDER:
        assert gradgradcheck(function, inputs, atol=1e-4)


HOST = [op for op in all_ops() if op.kind is Kind.OPAQUE and op.pure and not op.tests.dtypes]


@pytest.mark.parametrize("op", HOST, ids=str)
def test_types_are_those_of_the_references(op: Any) -> None:
    from graphflow.ir.build import emit, input_node
    from graphflow.ir.graph import Graph
    from graphflow.ir.interp import interpret
    from graphflow.ir.types import TensorType, TupleType, from_numpy_dtype

    for sample in op.tests.samples:
        arrays = [
            np.zeros(x, np.float32) if isinstance(x, tuple)
            else x.astype(np.float32) if x.dtype == np.float64 else x
            for x in sample.inputs
        ]  # fmt: skip
        leaves = tuple(
            input_node(f"x{i}", TensorType(from_numpy_dtype(a.dtype), a.shape))
            for i, a in enumerate(arrays)
        )
        node = emit(op, *leaves, **sample.attrs)
        count = len(node.type.items) if isinstance(node.type, TupleType) else 0
        outs = tuple(emit("get", node, index=i) for i in range(count)) or (node,)
        interpret(Graph(inputs=leaves, outputs=outs), arrays)  # checks every type


def test_factorisations_multiply_back() -> None:
    for shape in ((3, 3), (2, 3, 5), (5, 3), (0, 3), (2, 0, 0)):
        for kind in "fc":
            a = gf.tensor(random(7, *shape, kind=kind))
            p, lower, upper = L.lu(a)
            np.testing.assert_allclose((p @ lower @ upper).numpy(), a.numpy(), atol=1e-12)
            for mode in ("reduced", "complete"):
                q, r = L.qr(a, mode)
                np.testing.assert_allclose((q @ r).numpy(), a.numpy(), atol=1e-12)
            u, s, vh = L.svd(a, full_matrices=False)
            np.testing.assert_allclose((u * s.unsqueeze(-2) @ vh).numpy(), a.numpy(), atol=1e-12)
    a = gf.tensor(random(8, 4, 4))
    values, vectors = L.eig(a)
    np.testing.assert_allclose(
        (a.to(gf.complex128) @ vectors).numpy(), (vectors * values).numpy(), atol=1e-12
    )
    root = L.matrix_sqrth(hermitian(a))
    np.testing.assert_allclose((root @ root).numpy(), hermitian(a).numpy(), atol=1e-11)


def test_against_numpy() -> None:
    a, b = random(9, 2, 4, 4), random(10, 2, 4, 3)
    x, y = gf.tensor(a), gf.tensor(b)
    pairs = [
        (L.inv(x), np.linalg.inv(a)), (L.solve(x, y), np.linalg.solve(a, b)),
        (L.det(x), np.linalg.det(a)), (x.slogdet()[1], np.linalg.slogdet(a)[1]),
        (L.pinv(y), np.linalg.pinv(b)), (L.matrix_rank(y), np.linalg.matrix_rank(b)),
        (L.matrix_power(x, 5), np.linalg.matrix_power(a, 5)), (L.cond(x), np.linalg.cond(a)),
        (L.eigvalsh(hermitian(x)), np.linalg.eigvalsh(a @ a.swapaxes(1, 2))),
        (L.norm(x), np.linalg.norm(a.reshape(-1))),
        (L.norm(x[0], "nuc"), np.linalg.norm(a[0], "nuc")),
        (L.cross(y[..., :3, 0], y[..., 1:, 1]), np.cross(b[..., :3, 0], b[..., 1:, 1])),
        (L.lstsq(y, x).solution, np.stack([np.linalg.lstsq(p, q)[0] for p, q in zip(b, a)])),
    ]  # fmt: skip
    for found, expected in pairs:
        np.testing.assert_allclose(found.numpy(), expected, 1e-9, 1e-12)
    assert L.inv(x.float()).dtype is gf.float32


def test_singular_matrices() -> None:
    singular = np.stack([np.eye(3), np.ones((3, 3))])
    with pytest.raises(L.LinAlgError, match=r"linalg.inv: \(Batch element 1\).*singular"):
        L.inv(gf.tensor(singular))
    with pytest.raises(RuntimeError, match=r"linalg.cholesky: \(Batch element 1\).*positive"):
        L.cholesky(gf.tensor(singular - np.eye(3) * 0.5))
    assert gradcheck(L.det, leaf(np.arange(9.0).reshape(3, 3)))  # det 0, rank 2
    assert L.matrix_rank(gf.tensor(singular)).tolist() == [3, 1]
    for wrong, error in (
        (lambda: L.inv(gf.zeros(2, 3)), "square"), (lambda: L.svd(gf.zeros(3)), "2 dimensions"),
        (lambda: L.qr(gf.zeros(2, 2), mode="full"), "mode"),
        (lambda: L.eigh(gf.zeros(2, 2), "X"), "UPLO"),
        (lambda: L.det(gf.eye(2).half()), "precision"),
        (lambda: L.solve(gf.eye(2), gf.zeros(3, 1)), "Incompatible"),
        (lambda: L.multi_dot([gf.eye(2)]), "at least 2"), (lambda: L.norm(gf.eye(2), 7), "Order"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=error):
            wrong()


def test_compiled_programs_name_their_host_calls() -> None:
    def step(a: Any) -> Any:
        values, vectors = L.eigh(hermitian(a))
        loss = (values.log() * vectors.abs().sum(0)).sum() + L.solve(a, vectors).square().mean()
        return loss, *gf.autograd.grad(loss, (a,))

    a = leaf(random(11, 4, 4))
    compiled = gf.compile(step)
    for one, other in zip(compiled(a), step(a), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), 1e-9)
    text = str(compiled.explain())
    assert "eigh" in text and "solve" in text and "host operations: none" not in text


def test_a_failing_host_call_changes_no_state() -> None:
    count = gf.zeros(())

    @gf.compile
    def step(a: Any) -> Any:
        count.add_(1)
        return L.inv(a)

    step(gf.eye(2))
    with pytest.raises(RuntimeError, match="singular"):
        step(gf.zeros(2, 2))
    step(gf.eye(2))
    assert count.item() == 2


def test_gradients_of_graphs_pass_through_several_results() -> None:
    def loss(a: Any) -> Any:
        values, vectors = L.eigh(hermitian(a))
        return (values * vectors.abs().sum(0)).sum()

    a = random(12, 3, 3)
    graph = gf.trace(loss, gf.TensorSpec((3, 3), gf.float64))
    (_, found) = gf.compile(gf.grad(graph, 0))(gf.tensor(a))
    (expected,) = gf.autograd.grad(loss(x := leaf(a)), (x,))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), 1e-9)


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 0, 0), (3, 5, 7), (7, 4)])
def test_values_that_are_all_that_is_wanted_are_made_alone(shape: tuple[int, ...]) -> None:
    """Compiled functions do not have vectors made that nobody reads."""
    rng = np.random.default_rng(12)
    x = gf.tensor(rng.normal(size=shape))
    functions = [gf.linalg.svdvals, lambda t: gf.linalg.qr(t)[1]]
    functions += [lambda t: gf.linalg.qr(t, "complete")[1]]
    if shape[-1] == shape[-2]:
        functions += [gf.linalg.eigvalsh, gf.linalg.eigvals, lambda t: gf.linalg.eigvalsh(t, "U")]
    for function in functions:
        compiled = gf.compile(function)
        found, want = compiled(x).numpy(), function(x).numpy()
        if np.iscomplexobj(want):
            found, want = np.sort(found), np.sort(want)
        assert found.dtype == want.dtype
        np.testing.assert_allclose(found, want, 1e-10, 1e-12)
        (call,) = [s for s in compiled.programs[0].schedule.steps if hasattr(s, "function")]
        assert call.attrs["alone"] and not call.more


def test_gradients_of_values_have_their_vectors() -> None:
    x = gf.tensor(np.random.default_rng(13).normal(size=(4, 4)), requires_grad=True)

    def step(t: gf.Tensor) -> gf.Tensor:
        loss = (gf.linalg.svdvals(t) ** 3).sum() + (gf.linalg.eigvalsh(t + t.T) ** 3).sum()
        return gf.autograd.grad(loss, (t,))[0]

    np.testing.assert_allclose(gf.compile(step)(x).numpy(), step(x).numpy(), 1e-9, 1e-10)


@pytest.mark.parametrize("kind", ["f", "c"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (3, 6), (1, 1), (0, 2)])
def test_packed_factors_are_unpacked(shape: tuple[int, ...], kind: str) -> None:
    a = gf.tensor(random(3, *shape, kind=kind))[..., list(range(shape[-2]))[::-1], :]
    packed, pivots, info = a.lu(get_infos=True)
    assert tuple(info.shape) == shape[:-2] and not info.any()
    p, lower, upper = gf.lu_unpack(packed, pivots)
    np.testing.assert_allclose((p @ lower @ upper).numpy(), a.numpy(), atol=1e-12)
    for one, other in zip(L.lu(a), (p, lower, upper), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert [x.numel() for x in gf.lu_unpack(packed, pivots, False)[1:]] == [0, 0]
    assert gf.lu_unpack(packed, pivots, unpack_pivots=False).P.numel() == 0
    with pytest.raises(gf.errors.GraphFlowError, match="does not fit LU_pivots"):
        gf.lu_unpack(packed, gf.zeros(9, dtype=gf.int32))


@pytest.mark.parametrize("shape", [(9, 20), (20, 9), (2, 12, 12)])
def test_few_singular_values_are_numpys(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    left, right = rng.normal(size=(*shape[:-1], 3)), rng.normal(size=(3, shape[-1]))
    away = rng.normal(size=shape)
    gf.manual_seed(8)
    for a, more in ((left @ right, {}), (left @ right + away, {"M": gf.tensor(away)})):
        found = gf.compile(lambda a, more=more: gf.svd_lowrank(a, 3, **more))(gf.tensor(a))
        wanted = np.linalg.svd(left @ right, compute_uv=False)[..., :3]
        np.testing.assert_allclose(found.S.numpy(), wanted, 1e-9)
        whole = (found.U * found.S.unsqueeze(-2) @ found.V.mH).numpy()
        np.testing.assert_allclose(whole, left @ right, atol=1e-9)
    a = gf.tensor(left @ right + 5)
    u, s, v = gf.pca_lowrank(a, 3)
    assert u.shape == (*shape[:-1], 3)
    wanted = (left @ right) - (left @ right).mean(-2, keepdims=True)
    np.testing.assert_allclose((u * s.unsqueeze(-2) @ v.mH).numpy(), wanted, atol=1e-9)
    with pytest.raises(gf.errors.GraphFlowError, match="at most min"):
        gf.pca_lowrank(a, 13)


def test_gradients_of_few_singular_values() -> None:
    def values(left: gf.Tensor, right: gf.Tensor) -> gf.Tensor:
        gf.manual_seed(2)
        return gf.svd_lowrank(left @ right, 2).S

    assert gradcheck(values, [leaf(random(1, 6, 2)), leaf(random(2, 2, 5))])
    unpacked = lambda a: gf.lu_unpack(*gf.linalg.lu_factor(a))[1:]  # noqa: E731
    assert gradcheck(unpacked, [leaf(random(4, 4, 3))])
