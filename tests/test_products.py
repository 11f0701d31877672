"""Products of vectors and matrices, einsum, tensordot: against NumPy; gradients; errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.autograd import gradcheck, gradgradcheck


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3,)),
     ((3,), (5, 3, 2)), ((5, 1, 2, 3), (4, 3, 2)), ((2, 0), (0, 3)), ((0,), (0,)),
     ((2, 3), (5, 3, 1))],
)  # fmt: skip
def test_matmul_by_rank(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = draw(1, *a), draw(2, *b)
    found = (gf.tensor(x) @ gf.tensor(y)).numpy()
    np.testing.assert_allclose(found, x @ y, 1e-12, 1e-13)
    assert gradcheck(gf.matmul, [gf.tensor(v, requires_grad=True) for v in (x, y)])


def test_element_types() -> None:
    a = gf.tensor([[1, 2], [3, 4]], dtype=gf.int32)
    assert (a @ a).tolist() == [[7, 10], [15, 22]] and (a @ a).dtype is gf.int32
    half = gf.tensor([[1.0, 2.0]], dtype=gf.float16)
    assert (half @ half.t()).dtype is gf.float16
    z = gf.tensor([1 + 2j, 3j])
    assert gf.vdot(z, z).item() == 14 and gf.dot(z, z).item() == (1 + 2j) ** 2 - 9


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("equation", ["i,i->", "ki,i->k", "i,ki->k", "kij,kij->k"])
def test_few_long_sums(equation: str, dtype: Any) -> None:
    extents = {"i": 70_001, "j": 2, "k": 3}
    sides = equation.split("->")[0].split(",")
    x, y = (
        (draw(n, *[extents[label] for label in side]) * 9 - 1).astype(dtype)
        for n, side in enumerate(sides)
    )
    found = gf.compile(lambda a, b: gf.einsum(equation, a, b))(gf.tensor(x), gf.tensor(y))
    wide = np.int64 if dtype is np.int64 else np.float64
    expected = np.einsum(equation, x.astype(wide), y.astype(wide))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5 * (dtype is np.float32))


def test_sums_with_products() -> None:
    m, v, w = (gf.tensor(draw(i, *s)) for i, s in enumerate(((2, 3), (3,), (2,))))
    batch1, batch2 = gf.tensor(draw(3, 4, 2, 3)), gf.tensor(draw(4, 4, 3, 5))
    c = gf.tensor(draw(5, 2, 5))
    a, b, n = batch1.numpy(), batch2.numpy(), c.numpy()
    pairs = [
        (gf.addmm(c, batch1[0], batch2[0], beta=2, alpha=0.5), 2 * n + 0.5 * a[0] @ b[0]),
        (gf.addmv(w, m, v, alpha=3), w.numpy() + 3 * m.numpy() @ v.numpy()),
        (gf.addr(m, w, v, beta=0.5), 0.5 * m.numpy() + np.outer(w.numpy(), v.numpy())),
        (gf.addbmm(c, batch1, batch2), n + (a @ b).sum(0)),
        (gf.baddbmm(c, batch1, batch2, alpha=-1), n - a @ b),
        (gf.inner(batch1, v), np.inner(a, v.numpy())),
        (gf.tensordot(batch1, batch2, ([2, 0], [1, 0])), np.tensordot(a, b, ([2, 0], [1, 0]))),
        (gf.chain_matmul(m, batch2[0], c.t()), m.numpy() @ b[0] @ n.T),
    ]  # fmt: skip
    for found, expected in pairs:
        np.testing.assert_allclose(found.numpy(), expected, 1e-12, 1e-13)
    bad = gf.full((2, 5), float("nan"), dtype=gf.float64)
    assert gf.addmm(bad, batch1[0], batch2[0], beta=0).isnan().sum().item() == 0
    held = c.clone()
    assert held.addmm_(batch1[0], batch2[0]) is held


EQUATIONS: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = (
    ("ij,jk->ik", ((2, 3), (3, 4))), ("ij,jk", ((2, 3), (3, 4))), ("ba,cb", ((2, 3), (4, 2))),
    ("ii->i", ((3, 3),)), ("ii", ((3, 3),)), ("...ii->...i", ((2, 3, 3),)), ("ij->ji", ((2, 3),)),
    ("bij,bjk->bik", ((4, 2, 3), (4, 3, 5))), ("i,j->ij", ((2,), (3,))), ("i,i->", ((3,), (3,))),
    ("...ij,...jk->...ik", ((4, 1, 2, 3), (5, 3, 2))), ("ij,kj,lj->ikl", ((2, 3), (4, 3), (5, 3))),
    ("iij,jk->k", ((2, 2, 3), (3, 4))), ("ij->", ((2, 3),)),
    ("bn,anm,bm->ba", ((2, 3), (5, 3, 4), (2, 4))),
    ("...a,...b->...", ((2, 3), (2, 4))), ("ijk,k->ij", ((2, 3, 1), (4,))),
    ("ij,ij->ij", ((2, 1), (2, 3))),
)  # fmt: skip


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    arrays = [draw(i, *s) for i, s in enumerate(shapes)]
    tensors = [gf.tensor(a, requires_grad=True) for a in arrays]
    found = gf.einsum(equation, *tensors)
    np.testing.assert_allclose(found.detach().numpy(), np.einsum(equation, *arrays), 1e-12, 1e-13)
    assert gradcheck(lambda *t: gf.einsum(equation, *t), tensors)


def test_einsum_with_lists() -> None:
    a, b = gf.tensor(draw(1, 2, 3)), gf.tensor(draw(2, 3, 4))
    expected = a.numpy() @ b.numpy()
    np.testing.assert_allclose(gf.einsum(a, [0, 1], b, [1, 2], [0, 2]).numpy(), expected)
    np.testing.assert_allclose(gf.einsum(a, [..., 1], b, [1, 2]).numpy(), expected)
    np.testing.assert_allclose(gf.einsum("ij,jk->ik", [a, b]).numpy(), expected)


def test_a_compiled_einsum_is_a_contraction() -> None:
    compiled = gf.compile(lambda a, b: gf.einsum("bhqd,bhkd->bhqk", a, b))
    a, b = draw(1, 2, 3, 4, 5), draw(2, 2, 3, 6, 5)
    found = compiled(gf.tensor(a), gf.tensor(b)).numpy()
    np.testing.assert_allclose(found, np.einsum("bhqd,bhkd->bhqk", a, b), 1e-12)
    assert "mm_" in str(compiled.explain()) or "gemm" in str(compiled.explain())


def test_second_order() -> None:
    tensors = [gf.tensor(draw(i, *s), requires_grad=True) for i, s in enumerate(((2, 3), (3, 2)))]
    assert gradgradcheck(lambda a, b: gf.einsum("ij,ji->i", a, b).square(), tensors)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: gf.ones(2, 3) @ gf.ones(2, 3), "do not multiply"),
        (lambda: gf.ones(2) @ gf.tensor(1.0), "at least 1 dimension"),
        (lambda: gf.ones(2, 2) @ gf.ones(2, 2).double(), "one dtype"),
        (lambda: gf.mm(gf.ones(2), gf.ones(2)), "2 dimensions"),
        (lambda: gf.bmm(gf.ones(2, 2, 2), gf.ones(3, 2, 2)), "batches"),
        (lambda: gf.dot(gf.ones(2, 2), gf.ones(2)), "1 dimension"),
        (lambda: gf.addmm(gf.ones(3), gf.ones(2, 2), gf.ones(2, 2)), "does not expand"),
        (lambda: gf.addmm(gf.ones(2).long(), *2 * [gf.ones(2, 2).long()], alpha=0.5), "integer"),
        (lambda: gf.einsum("ij,jk->ik", gf.ones(2, 3)), "2 terms"),
        (lambda: gf.einsum("ij,jk->ik", gf.ones(2, 3), gf.ones(2, 3)), "extents"),
        (lambda: gf.einsum("ij->ijk", gf.ones(2, 3)), "no operand"),
        (lambda: gf.einsum("i1->i", gf.ones(2, 3)), "no letter"),
        (lambda: gf.tensordot(gf.ones(2, 3), gf.ones(2, 3), 1), "does not meet"),
    ],
)
def test_errors(call: Any, error: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=error):
        call()
