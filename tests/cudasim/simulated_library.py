"""Products by a library: descriptions executed in NumPy by the library's documented meaning.

Run by ``tests/test_cuda.py`` in the simulator.  cuBLASLt itself runs on a GPU only; what is
shown here is that it would be asked for the right products.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import on_device
from graphflow.codegen.cuda import parted
from graphflow.ir.op import Kind
from graphflow.runtime.cuda.library import Wanted
from tests.cudasim.models import step_of
from tests.cudasim.numpy_library import NumpyLibrary, in_place_of_cublas


@pytest.fixture
def lib(monkeypatch: pytest.MonkeyPatch) -> Iterator[NumpyLibrary]:
    made = in_place_of_cublas(monkeypatch.setattr)
    on_device._programs.clear()
    yield made
    on_device._programs.clear()


def array(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return rng.normal(size=shape).astype(np.float32)


def same(function: Any, *arrays: np.ndarray[Any, Any], rtol: float = 2e-5) -> Any:
    """``function`` compiled on the device and on the CPU; the program of the device."""
    step = gf.compile(function)
    found = step(*(gf.tensor(a).cuda() for a in arrays)).cpu().float().numpy()
    wanted = function(*(gf.tensor(a) for a in arrays)).float().numpy()
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * max(1, np.abs(wanted).max()))
    return step


def test_every_product_of_the_op_matrix(lib: NumpyLibrary) -> None:
    from tests.cudasim.__main__ import check
    from tests.cudasim.calls import all_cases

    wrong, reasons, count = [], set(), 0
    for case in all_cases():
        if case.op.kind is not Kind.CONTRACTION or case.op.tiles is not None:
            continue
        count += 1
        wrong.append(check(case, Wanted(libraries=True)))
    assert not any(wrong), [w for w in wrong if w]
    assert len(lib.calls) >= count // 3 > 10, (len(lib.calls), count, reasons)
    assert {m.compute for m in lib.calls} == {"f32", "f64"}


def test_shapes_and_transposes(lib: NumpyLibrary) -> None:
    rng = np.random.default_rng(0)
    for trial in range(40):
        m, n, k = (int(x) for x in rng.choice([1, 1, 2, 3, 5, 8], 3))
        batch = tuple(int(x) for x in rng.choice([1, 2, 3], rng.integers(0, 3)))
        turns = rng.integers(0, 2, 3)
        a = array(rng, *batch, *((k, m) if turns[0] else (m, k)))
        b = array(rng, *(batch if trial % 3 else ()), *((n, k) if turns[1] else (k, n)))
        bias = array(rng, *[(n,), (m, 1), (m, n), (1,)][trial % 4])
        scale = float(rng.choice([1.0, 0.5]))

        def step(a: Any, b: Any, bias: Any, turns: Any = turns, scale: float = scale) -> Any:
            left, right = a.mT if turns[0] else a, b.mT if turns[1] else b
            found = (left @ right) * scale + bias
            return found.mT.contiguous() if turns[2] else found

        try:
            same(step, a, b, bias)
        except AssertionError as error:
            raise AssertionError(f"trial {trial}: {a.shape} {b.shape} {turns}") from error
    assert len(lib.calls) >= 35 and any(x.transpose_a for x in lib.calls)
    assert any(x.transpose_b for x in lib.calls) and any(x.beta for x in lib.calls)


def linear(rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    return [array(rng, 6, 4), array(rng, 5, 4), array(rng, 5)]


EPILOGUES = {
    "bias": (lambda x: x, (True, "")),
    "relu": (lambda x: x.relu(), (True, "relu")),
    "clamp": (lambda x: gf.clamp(x, min=0), (True, "relu")),
    "gelu": (lambda x: F.gelu(x, approximate="tanh"), (True, "gelu")),
    "relu6": (F.relu6, None),
    "gelu with erf": (F.gelu, None),
    "leaky": (F.leaky_relu, None),
    "tanh": (lambda x: x.tanh(), None),
    "relu and more": (lambda x: x.relu().cos(), (True, "relu")),
}


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_what_follows(lib: NumpyLibrary, name: str, half: bool) -> None:
    function, wanted = EPILOGUES[name]
    dtype = gf.float16 if half else gf.float32

    def step(x: gf.Tensor, w: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        return function(F.linear(x, w, b))

    rng = np.random.default_rng(1)
    given = [gf.tensor(a).to(dtype) for a in linear(rng)]
    compiled = gf.compile(step)
    found = compiled(*(x.cuda() for x in given)).cpu().float().numpy()
    np.testing.assert_allclose(found, step(*given).float().numpy(), atol=1e-2 if half else 1e-6)
    (made,) = lib.calls
    assert (made.bias, made.activation) == (wanted or (True, "")), "as much as it does"
    assert made.d.dtype == ("f16" if half else "f32") and made.compute == "f32"
    calls = compiled.programs[0].schedule.steps
    more = name == "relu and more" or not wanted
    assert len(calls) == 1 + more, "what does not fit is a kernel after the product"
    assert "products: 1 by NumPy's library" in str(compiled.explain())


def test_what_a_gradient_will_read_is_what_the_library_makes(lib: NumpyLibrary) -> None:
    """Several results: the sum with its bias, and a function of it."""

    def step(x: gf.Tensor, w: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        before = F.linear(x, w, b)
        return gf.stack([before, F.gelu(before) * before.cos()])

    compiled = same(step, *linear(np.random.default_rng(8)))
    (made,) = lib.calls
    assert made.bias and "products: 1 by NumPy's library" in str(compiled.explain())


def test_small_products_stay_with_what_follows(
    lib: NumpyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parted, "LEAST_WORK", 1 << 20)
    step = same(lambda x, w, b: F.linear(x, w, b).tanh(), *linear(np.random.default_rng(2)))
    text = str(step.explain())
    assert not lib.calls and "no epilogue of the library's" in text


def test_residuals_and_gradients_added_to_what_is_there(lib: NumpyLibrary) -> None:
    rng = np.random.default_rng(3)
    same(lambda x, w, r: x @ w.T * 0.25 + r, array(rng, 6, 4), array(rng, 5, 4), array(rng, 6, 5))
    (made,) = lib.calls
    assert (made.alpha, made.beta, made.bias, made.c) == (0.25, 1.0, False, made.d)


def test_attention_is_batched_over_heads_where_they_lie(lib: NumpyLibrary) -> None:
    def scores(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        q, k = (z.view(2, 5, 3, 4).transpose(1, 2) for z in (x, y))
        return q @ k.transpose(-1, -2)

    rng = np.random.default_rng(4)
    same(scores, array(rng, 2, 5, 12), array(rng, 2, 5, 12))
    assert [(m.batch, m.a.leading, m.a.step) for m in lib.calls] == [(3, 12, 4)] * 2


CALLS: dict[str, tuple[Any, list[tuple[int, ...]], list[tuple[int, ...]]]] = {
    "a convolution of 1 by 1": (F.conv2d, [(2, 3, 4, 4), (5, 3, 1, 1)], [(16, 5, 3, 2)]),
    "two axes of depth": (
        lambda x, w: gf.einsum("bij,bkj->ik", x, w), [(3, 4, 5), (3, 6, 5)], [(6, 4, 15, 1)],
    ),
    "a row": (lambda x, w: x @ w, [(5,), (5, 6)], [(6, 1, 5, 1)]),
    "a column": (lambda x, w: x @ w, [(4, 5), (5,)], [(4, 1, 5, 1)]),
    "a number": (lambda x, w: x @ w, [(5,), (5,)], [(1, 1, 5, 1)]),
    "attention": (
        F.scaled_dot_product_attention, [(2, 3, 8, 4)] * 3, [(8, 8, 4, 6), (4, 8, 8, 6)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_functions(lib: NumpyLibrary, name: str) -> None:
    function, shapes, wanted = CALLS[name]
    rng = np.random.default_rng(7)
    same(function, *(array(rng, *shape) for shape in shapes))
    assert [(m.d.rows, m.d.columns, m.depth, m.batch) for m in lib.calls] == wanted


def test_precision(lib: NumpyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = (gf.randn(4, 4).cuda() for _ in range(2))
    for allowed, wanted in (("high", "tf32"), ("highest", "f32")):
        gf.set_float32_matmul_precision(allowed)
        gf.compile(lambda x, w: x @ w)(x, w), x @ w
        assert [m.compute for m in lib.calls[-2:]] == [wanted] * 2, "compiled and eagerly"
    gf.compile(lambda x, w: x @ w)(x.double(), w.double())
    assert lib.calls[-1].compute == "f64"


@pytest.mark.parametrize("half", [gf.float16, gf.bfloat16], ids=str)
def test_autocast_multiplies_halves_and_adds_up_in_float32(
    lib: NumpyLibrary, half: gf.dtype
) -> None:
    gf.manual_seed(0)
    model = gf.nn.Sequential(gf.nn.Linear(4, 8), gf.nn.ReLU(), gf.nn.Linear(8, 3)).cuda()

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        with gf.autocast("cuda", dtype=half):
            loss = model(x).float().square().mean()
        loss.backward()
        return loss

    step(gf.randn(16, 4).cuda())
    short = "f16" if half is gf.float16 else "bf16"
    assert len(lib.calls) == 5, "two forward, two gradients of weights, one of what is between"
    assert {(m.a.dtype, m.b.dtype, m.compute) for m in lib.calls} == {(short, short, "f32")}
    assert (lib.calls[0].bias, lib.calls[0].activation) == (True, "relu"), "rounded before"


def test_what_the_library_refuses_is_a_kernel_and_said(lib: NumpyLibrary) -> None:
    lib.refused.add("f32")
    step = same(lambda a, b: a @ b, *(array(np.random.default_rng(5), 3, 3) for _ in range(2)))
    assert not lib.calls
    text = str(step.explain())
    assert re.search(r"1 by kernels of our own \(mm_\w+\): NumPy's library: nothing for f32", text)


def test_why_kernels_of_our_own_are_used(
    lib: NumpyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    step = same(lambda x, w: F.conv2d(x, w), array(rng, 1, 2, 5, 5), array(rng, 3, 2, 3, 3))
    assert "no cuDNN" in str(step.explain())
    step = same(lambda x, w: x.flip(-1) @ w, array(rng, 4, 5), array(rng, 5, 3))
    text = str(step.explain())
    assert "operands or the result do not lie as matrices do, and" in text, text
    step = gf.compile(lambda a, b: a @ b)
    whole = gf.arange(4).reshape(2, 2).cuda()
    assert step(whole, whole).tolist() == [[2, 3], [6, 11]]
    assert "i64 by i64 to i64 is not among the library's types" in str(step.explain())
    monkeypatch.setattr(gf.backends.cuda, "library", False)
    step = same(lambda a, b: a @ b, array(rng, 3, 3), array(rng, 3, 3))
    assert "gf.backends.cuda.library is off" in str(step.explain()) and not lib.calls


def test_operands_that_begin_anywhere_are_copied_to_where_vectors_may(lib: NumpyLibrary) -> None:
    x, w = gf.randn(5, 4).cuda(), gf.randn(4, 3).cuda()
    found = gf.compile(lambda x, w: x @ w)(x[1:], w)
    np.testing.assert_allclose(found.tolist(), (x[1:].cpu() @ w.cpu()).tolist(), atol=1e-6)
    assert {asked[1] for asked in lib.prepared_for} == {(16,) * 5} and len(lib.calls) == 1
    found = gf.compile(lambda x, w: x @ w)(gf.randn(5, 3).cuda()[1:], w[:3])
    assert lib.prepared_for[-1][1] == (16,) * 5


def test_other_sizes_of_symbolic_dimensions(lib: NumpyLibrary) -> None:
    step = gf.compile(lambda x, w: (x @ w).relu(), dynamic=True)
    w = gf.randn(4, 3).cuda()
    for rows in (2, 5, 7):
        x = gf.randn(rows, 4).cuda()
        wanted = (x.cpu() @ w.cpu()).relu()
        np.testing.assert_allclose(step(x, w).tolist(), wanted.tolist(), atol=1e-6)
        assert lib.calls[-1].d.columns == rows and lib.calls[-1].activation == "relu"


def test_replayed_steps_contain_the_calls(
    lib: NumpyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cudasim.simulated_replay import recorded

    recorder = recorded(monkeypatch)
    step, _, batch = step_of("mlp", "cuda")
    compiled = gf.compile(step)
    losses, asked = [], []
    for _ in range(4):
        losses.append(float(compiled(*batch)))
        asked.append(len(lib.prepared_for))
    step, _, batch = step_of("mlp", "cpu")
    compiled = gf.compile(step)
    np.testing.assert_allclose(losses, [float(compiled(*batch)) for _ in range(4)], rtol=1e-4)
    assert recorder.replays and len(lib.calls) >= 12
    assert asked[1] == asked[-1], "nothing is asked for while a graph runs"
