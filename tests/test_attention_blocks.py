"""Attention block by block: results, gradients, draws and memory, against NumPy in double."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.codegen import apart
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.schedule import Loop
from graphflow.nn.functional import attention_blocks, attention_tiles
from graphflow.passes import loop_products
from graphflow.passes.pipeline import run_pipeline

Array = np.ndarray[Any, Any]
WRAPS = pytest.mark.parametrize("wrap", [lambda f: f, gf.compile], ids=["eager", "compiled"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 rows, and tiles of about 16 by 16, however small the scores are."""
    for name, value in (("LEAST_BYTES", 0), ("BLOCK_BYTES", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(attention_blocks, name, value)
    monkeypatch.setattr(attention_blocks, "MOST_BLOCKS", 99)
    monkeypatch.setattr(attention_tiles, "SIDE", 16)


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    print("seed", seed)
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def summed(x: Array, shape: tuple[int, ...]) -> Array:
    """``x`` summed down to ``shape``, from which it was broadcast."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    return x.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def attended(q: Array, k: Array, v: Array, bias: Any, ct: Array) -> list[Array]:
    """The result and the gradients of query, key and value (the formulas of softmax)."""
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ k.swapaxes(-1, -2) * scale + bias
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(-1, keepdims=True))
        p = np.nan_to_num(e / e.sum(-1, keepdims=True))
    flow = ct @ v.swapaxes(-1, -2)
    ds = p * (flow - (p * flow).sum(-1, keepdims=True)) * scale
    grads = ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ ct
    return [p @ v, *(summed(g, x.shape) for g, x in zip(grads, (q, k, v), strict=True))]


def bias_of(kind: str, length: int, source: int) -> tuple[Any, Any]:
    """A mask (or None), and what it adds to scores."""
    rng = np.random.default_rng(9)
    if kind == "causal":
        return None, np.where(np.tri(length, source, dtype=bool), 0.0, -np.inf)
    if kind == "numbers":
        number = rng.standard_normal((length, source))
        return gf.tensor(number), number
    if kind == "keys":
        allowed = rng.random(source) < 0.7
        return gf.tensor(allowed), np.where(allowed, 0.0, -np.inf)
    if kind == "samples":
        allowed = rng.random((2, 1, length, source)) < 0.7
        allowed[1, 0, 3] = False  # looks nowhere
        return gf.tensor(allowed), np.where(allowed, 0.0, -np.inf)
    return None, 0.0


@WRAPS
@pytest.mark.parametrize("kind", ["none", "causal", "numbers", "keys", "samples"])
@pytest.mark.parametrize("sizes", [(40, 40), (33, 20), (32, 50)])
def test_results_and_gradients(kind: str, sizes: tuple[int, int], wrap: Any, small: None) -> None:
    length, source = sizes
    arrays = drawn(1, (2, 3, length, 4), (2, 3, source, 4), (2, 3, source, 5), (2, 3, length, 5))
    mask, bias = bias_of(kind, length, source)

    def run(q: Any, k: Any, v: Any, ct: Any) -> Any:
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal")
        return out, *gf.autograd.grad(out, (q, k, v), ct)

    found = wrap(run)(*(gf.tensor(x, requires_grad=i < 3) for i, x in enumerate(arrays)))
    q, k, v, ct = arrays
    for got, want in zip(found, attended(q, k, v, bias, ct), strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-9, atol=1e-12)


@WRAPS
def test_shared_heads_and_samples(wrap: Any, small: None) -> None:
    q, k, v, ct = drawn(2, (2, 4, 40, 4), (1, 2, 30, 4), (2, 2, 30, 4), (2, 4, 40, 4))

    def run(q: Any, k: Any, v: Any, ct: Any) -> Any:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out, *gf.autograd.grad(out, (q, k, v), ct)

    found = wrap(run)(*(gf.tensor(x, requires_grad=i < 3) for i, x in enumerate((q, k, v, ct))))
    grouped = [q.reshape(2, 2, 2, 40, 4), k[:, :, None], v[:, :, None], ct.reshape(2, 2, 2, 40, 4)]
    bias = np.where(np.tri(40, 30, dtype=bool), 0.0, -np.inf)
    want = attended(*grouped[:3], bias, grouped[3])
    for got, expected in zip(found, want, strict=True):
        expected = expected.reshape(got.shape)
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@WRAPS
def test_dropout_draws_the_same_again_for_the_gradients(wrap: Any, small: None) -> None:
    q, k, ct = (gf.tensor(x) for x in drawn(3, (40, 4), (40, 4), (40, 40)))

    def run(v: Any) -> Any:
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)
        return out, gf.autograd.grad(out, v, ct)[0]

    results = []
    for _ in range(2):
        gf.manual_seed(5)
        results.append(wrap(run)(gf.eye(40, dtype=gf.float64).requires_grad_()))
    weights, grad = (x.detach().numpy() for x in results[0])
    assert 0.25 < (weights == 0).mean() < 0.55
    np.testing.assert_allclose(grad, weights.T @ ct.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(weights, results[1][0].detach().numpy())
    numbers = attended(q.numpy(), k.numpy(), np.eye(40), 0.0, ct.numpy())[0]
    kept = weights != 0
    np.testing.assert_allclose(weights[kept], numbers[kept] / 0.6, rtol=1e-6)


@pytest.mark.parametrize("wrap, shape", [(lambda f: f, (20, 3)), (gf.compile, (4, 20, 3))])
def test_second_gradients(wrap: Any, shape: tuple[int, ...], small: None) -> None:
    given = [gf.tensor(x, requires_grad=True) for x in drawn(4, *[shape] * 3)]

    def second(attend: Any) -> Any:
        def run(q: Any, k: Any, v: Any) -> Any:
            out = attend(q, k, v).sin().sum()
            first = gf.autograd.grad(out, (q, k, v), create_graph=True)
            return gf.autograd.grad(sum((g * g).sum() for g in first), (q, k, v))

        return run

    def whole(q: Any, k: Any, v: Any) -> Any:
        scores = gf.where(gf.ones(20, 20).tril().bool(), q @ k.mT / math.sqrt(3), -math.inf)
        return gf.softmax(scores, -1) @ v

    def blocks(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    for got, want in zip(wrap(second(blocks))(*given), second(whole)(*given), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-8, atol=1e-10)


def test_a_mask_that_is_learned_has_a_gradient(small: None) -> None:
    q, mask = (gf.tensor(x, requires_grad=True) for x in drawn(5, (40, 4), (40, 40)))
    F.scaled_dot_product_attention(q, q, q, mask).sum().backward()
    assert mask.grad is not None and bool(mask.grad.abs().sum() > 0)


@pytest.mark.parametrize("causal", [False, True])
def test_memory_does_not_grow_with_the_square(causal: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(attention_blocks, "LEAST_BYTES", 1 << 18)
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(attention_blocks, "LEAST_ROWS", 16)
    monkeypatch.setattr(attention_tiles, "SIDE", 32)
    monkeypatch.setattr(loop_products, "ENOUGH", 32)
    arena = []
    for length in (256, 512):

        def run(q: Any, k: Any, v: Any) -> Any:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return gf.autograd.grad(out.sum(), (q, k, v))

        given = [gf.ones(2, length, 4).requires_grad_() for _ in range(3)]
        graph = run_pipeline(gf.trace(run, *given))[-1].graph
        arena.append(build_schedule(graph).arena_bytes)
    scores = 2 * 512 * 512 * 4
    assert arena[1] < scores / 4 and arena[1] < 2.5 * arena[0]


def test_a_backward_pass_outside_of_the_program_keeps_a_number_a_row_besides_what_is_there(
    small: None,
) -> None:
    q, k, v = (gf.tensor(x, requires_grad=True) for x in drawn(6, *[(40, 4)] * 3))

    def run(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    program = gf.compile(run)
    found = gf.autograd.grad(program(q, k, v).sin().sum(), (q, k, v))
    expected = gf.autograd.grad(run(q, k, v).sin().sum(), (q, k, v))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-9, atol=1e-12)
    outputs = program.latest.program.graph.outputs
    assert {tuple(node.type.shape) for node in outputs} == {(40, 4), (40, 1)}
    assert len(set(outputs)) == 2


def test_gradients_of_the_graph(small: None) -> None:
    arrays = [gf.tensor(x) for x in drawn(7, *[(40, 4)] * 3)]

    def loss(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).sin().sum()

    specs = [gf.TensorSpec((40, 4), gf.float64)] * 3
    found = gf.grad(gf.trace(loss, *specs), ["q", "k", "v"]).run(*(x.numpy() for x in arrays))
    leaves = [x.clone().requires_grad_() for x in arrays]
    expected = gf.autograd.grad(loss(*leaves), leaves)
    for got, want in zip(found[1:], expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-9, atol=1e-12)


def test_the_threshold_goes_by_the_bytes_of_the_scores() -> None:
    cut, Cut = attention_blocks.cut, attention_blocks.Cut
    assert cut((8, 4), 64, 64, 4) is None  # a small GPT: half a megabyte
    assert cut((1, 8), 1, 10**7, 4) is None
    assert cut((1, 8), 4096, 4096, 4) == Cut(4, (2,), 256)
    assert cut((1, 8), 4095, 4095, 4) == Cut(4, (2,), 256)
    assert cut((1, 8), 4096, 4096, 4, once=True) == Cut(1, (1, 8), 128)
    assert cut((1, 8), 65536, 65536, 4) == Cut(4, (2,), 2048)  # 32 blocks at most
    assert cut((8, 12), 512, 512, 4) == Cut(4, (2, 12), 176)  # heads of a sample stay together
    assert cut((4, 25), 4096, 4096, 4) == Cut(20, (5,), 128)
    assert cut((7,), 4096, 4096, 4) == Cut(1, (7,), 128)


def test_which_attention_is_cut_into_tiles() -> None:
    def rows_and_keys(*lead: int, length: int = 4096, source: int = 4096) -> Any:
        found: list[Any] = []

        def run(x: Any) -> Any:
            tiles = attention_tiles.tiles_of(lead, length, source, 1.0, False)
            found.append(tiles and (tiles.heads, tiles.rows, tiles.keys))
            return x

        gf.trace(run, gf.ones(1))
        return found[0]

    assert attention_tiles.tiles_of((8,), 4096, 4096, 1.0, False) is None  # no program
    assert rows_and_keys(2, 4) == (8, 256, 256)
    assert rows_and_keys(1, 1) is None and rows_and_keys(8, length=100) is None
    assert rows_and_keys(8, length=1000) == (8, 256, 256)
    assert rows_and_keys(8, length=1100, source=300) == (8, 288, 304)
    assert rows_and_keys(8, length=192, source=383) == (8, 192, 384)


@pytest.mark.parametrize("causal", [False, True])
def test_any_number_of_threads_gives_the_same_bits(
    causal: bool, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "LEAST_NS", 0)
    arrays = drawn(10, *[(5, 70, 8)] * 4)

    def run(q: Any, k: Any, v: Any, ct: Any) -> Any:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return out, *gf.autograd.grad(out, (q, k, v), ct)

    given = [gf.tensor(x, dtype=gf.float32, requires_grad=i < 3) for i, x in enumerate(arrays)]
    before, runs = gf.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            gf.set_num_threads(threads)
            program = gf.compile(run)
            runs += [[x.detach().numpy().tobytes() for x in program(*given)] for _ in range(3)]
            steps = program.latest.program.schedule.steps
            shared = [step.parallel for step in steps if isinstance(step, Loop)]
            assert shared == [threads > 1] * 2
    finally:
        gf.set_num_threads(before)
    assert all(found == runs[0] for found in runs)


@WRAPS
def test_half_precision_is_rounded_once(wrap: Any, small: None) -> None:
    q, k, v = (x.astype(np.float16) for x in drawn(8, (2, 40, 4), (2, 40, 4), (2, 40, 4)))
    found = wrap(F.scaled_dot_product_attention)(*map(gf.tensor, (q, k, v)))
    assert found.dtype is gf.float16
    wide = [x.astype(np.float64) for x in (q, k, v)]
    want = attended(*wide, 0.0, wide[2])[0]
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-3, atol=1e-4)
