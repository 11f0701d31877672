"""Attention by a library: routines executed in NumPy from addresses, steps beside the CPU's.

Run by ``tests/test_cuda.py`` in the simulator.  cuDNN itself runs on a GPU only; its binding is
tried with a module that stands in for it.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.codegen.schedule import Call, LibraryCall, plain_steps
from graphflow.errors import GraphFlowError
from graphflow.nn.functional import attention_blocks
from graphflow.runtime.cuda import attention, routines
from graphflow.runtime.cuda import cudnn as handles
from tests.cudasim import fake_cudnn
from tests.cudasim.models import LanguageModel
from tests.cudasim.numpy_attention import NumpyAttention, in_place_of_cudnn
from tests.cudasim.simulated_replay import recorded

HALVES = pytest.mark.parametrize("half", [gf.float16, gf.bfloat16], ids=str)


@pytest.fixture
def lib(monkeypatch: pytest.MonkeyPatch) -> NumpyAttention:
    return in_place_of_cudnn(monkeypatch.setattr)


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[gf.Tensor]:
    print("seed", seed)
    rng = np.random.default_rng(seed)
    return [gf.tensor(rng.normal(size=shape)) for shape in shapes]


def gradients(causal: bool = False, scale: float | None = None) -> Any:
    """A step: attention and the gradients of its operands."""

    def step(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor, ct: gf.Tensor) -> tuple[gf.Tensor, ...]:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
        return out, *gf.autograd.grad(out, (q, k, v), ct)

    return step


def compared(step: Any, given: list[gf.Tensor], dtype: gf.dtype, tolerance: float) -> Any:
    """``step`` compiled on the device in ``dtype`` beside float64 on the CPU."""
    rounded = [x.to(dtype) for x in given]
    compiled = gf.compile(step)
    found = compiled(*(x.cuda().requires_grad_() for x in rounded))
    wanted = step(*(x.double().requires_grad_() for x in rounded))
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype is dtype
        b = b.detach().numpy()
        np.testing.assert_allclose(
            a.detach().cpu().double().numpy(), b, rtol=0, atol=tolerance * max(1, np.abs(b).max())
        )
    return compiled


@HALVES
@pytest.mark.parametrize("causal", [False, True])
def test_results_and_gradients(lib: NumpyAttention, half: gf.dtype, causal: bool) -> None:
    shapes = [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 16), (2, 3, 5, 16)]
    step = compared(gradients(causal, 0.3), drawn(1, *shapes), half, 3e-2)
    assert [r.name for r in lib.calls] == ["attend", "attend_gradient"]
    text = str(step.explain())
    assert "attention: 1 attend by NumPy's attention; 1 attend_gradient by NumPy's" in text
    assert "host operations: none" in text
    (program,) = step.programs
    assert not any(isinstance(s, Call) for s in plain_steps(program.schedule.steps)), "no copies"


def test_operands_are_taken_and_results_left_where_they_lie(lib: NumpyAttention) -> None:
    """Of one product that makes queries, keys and values, for one that puts heads together."""

    def step(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        made = (x @ w).view(2, 6, 3, 4, 8).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(*made.unbind(0), is_causal=True)
        return out.transpose(1, 2).reshape(2, 6, 32) @ w[:, :8]

    x, w = (t.half() for t in drawn(2, (2, 6, 32), (32, 96)))
    compiled = gf.compile(step)
    found = compiled(x.cuda(), w.cuda()).cpu()
    np.testing.assert_allclose(found.double().numpy(), step(x.double(), w.double()), atol=2.0)
    np.testing.assert_allclose(found.float().numpy(), step(x, w).float().numpy(), atol=0.3)
    steps = list(plain_steps(compiled.programs[0].schedule.steps))
    assert len(steps) == 3 and isinstance(steps[1], LibraryCall), "two products around it"
    query, _, _, out, _ = lib.calls[0].arrays
    assert query.strides == (6 * 96, 8, 96, 1) and out.strides == (6 * 32, 8, 32, 1)


def test_operands_that_do_not_lie_well_are_copied(lib: NumpyAttention) -> None:
    def step(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor) -> gf.Tensor:
        q, k, v = q.transpose(-1, -2), k[..., 1:9], v.expand(2, 3, 5, 8)
        return F.scaled_dot_product_attention(q, k, v)

    given = [x.half() for x in drawn(3, (2, 3, 8, 4), (2, 3, 5, 12), (1, 1, 5, 8))]
    found = gf.compile(step)(*(x.cuda() for x in given)).cpu().double().numpy()
    np.testing.assert_allclose(found, step(*(x.double() for x in given)).numpy(), atol=5e-3)
    assert [x.strides[-1] for x in lib.calls[0].arrays] == [1] * 5
    assert all(s % 8 == 0 and s for x in lib.calls[0].arrays[:3] for s in x.strides[:-1])


def model_step(device: str) -> tuple[Any, Any, list[gf.Tensor]]:
    gf.manual_seed(0)
    model = LanguageModel(words=7, length=6, width=16, heads=2).to(device)
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rng = np.random.default_rng(4)
    x, y = (gf.tensor(rng.integers(0, 7, shape)).to(device) for shape in ((3, 6), (18,)))

    def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        with gf.autocast(device, dtype=gf.bfloat16):
            loss = F.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        return loss

    return gf.compile(step), model, [x, y]


def test_a_language_model_learns_as_on_the_cpu(lib: NumpyAttention) -> None:
    losses, weights = [], []
    for device in ("cpu", "cuda"):
        step, model, batch = model_step(device)
        losses.append([float(step(*batch)) for _ in range(4)])
        weights.append([p.detach().cpu().numpy() for p in model.parameters()])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2)
    assert losses[1][-1] < losses[1][0]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=4e-2)
    assert [r.name for r in lib.calls] == ["attend", "attend_gradient"] * 4


def test_batches_of_any_size_are_one_program(lib: NumpyAttention) -> None:
    sizes = {name: {0: "n"} for name in ("q", "k", "v", "ct")}
    step = gf.compile(gradients(causal=True), dynamic=sizes)
    for batch in (4, 2, 5):
        given = [x.half() for x in drawn(5, *[(batch, 2, 4, 8)] * 4)]
        found = step(*(x.cuda().requires_grad_() for x in given))
        wanted = gradients(causal=True)(*(x.double().requires_grad_() for x in given))
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                a.detach().cpu().double().numpy(), b.detach().numpy(), atol=2e-2
            )
    assert len(step.programs) == 1
    assert [r.arrays[0].shape[0] for r in lib.calls] == [4, 4, 2, 2, 5, 5]


@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3)], ids=str)
def test_any_axes_before_positions(lib: NumpyAttention, lead: tuple[int, ...]) -> None:
    step = compared(gradients(causal=True), drawn(19, *[(*lead, 5, 8)] * 4), gf.float16, 1e-2)
    assert len(lib.calls) == 2 and "attend_gradient by" in str(step.explain())


def test_heads_of_the_query_share_keys(lib: NumpyAttention) -> None:
    def step(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor, ct: gf.Tensor) -> tuple[gf.Tensor, ...]:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out, *gf.autograd.grad(out, (q, k, v), ct)

    shapes = [(2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8), (2, 4, 5, 8)]
    compared(step, drawn(20, *shapes), gf.float16, 2e-2)
    assert [r.arrays[1].shape for r in lib.calls] == [(2, 4, 7, 8)] * 2


def test_inside_of_a_loop(lib: NumpyAttention) -> None:
    def step(q: gf.Tensor, k: gf.Tensor) -> gf.Tensor:
        def body(state: gf.Tensor, key: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            state = F.scaled_dot_product_attention(state, key, key)
            return state, state

        return gf.scan(body, q, k)[1]

    given = [x.half() for x in drawn(6, (1, 2, 3, 8), (4, 1, 2, 5, 8))]
    found = gf.compile(step)(*(x.cuda() for x in given)).cpu().double().numpy()
    np.testing.assert_allclose(found, step(*(x.double() for x in given)).numpy(), atol=5e-3)
    assert len(lib.calls) == 4


FALLBACKS: dict[str, tuple[Any, str]] = {
    "off": (lambda lib: gf.backends.cuda.enable_cudnn_sdp(False), r"enable_cudnn_sdp\(False\)"),
    "no cuDNN": (lambda lib: setattr(gf.backends.cudnn, "enabled", False), "cudnn.enabled is off"),
    "no library": (lambda lib: setattr(gf.backends.cuda, "library", False), "library is off"),
    "refused": (lambda lib: setattr(lib, "refused", "not today"), "not today"),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_products_where_the_library_does_not(lib: NumpyAttention, name: str) -> None:
    change, why = FALLBACKS[name]
    change(lib)
    try:
        step = compared(gradients(causal=True), drawn(7, *[(2, 2, 5, 8)] * 4), gf.float16, 1e-2)
    finally:
        gf.backends.cuda.enable_cudnn_sdp(True)
        gf.backends.cuda.library = gf.backends.cudnn.enabled = True
    assert not lib.calls
    assert re.search(rf"attention: 1 attend in parts: .*{why}", str(step.explain()))


def test_without_a_library_it_is_products() -> None:
    step = compared(gradients(), drawn(8, *[(1, 2, 4, 8)] * 4), gf.bfloat16, 5e-2)
    assert "1 attend in parts: the simulator has no driver" in str(step.explain())


def test_what_does_not_fit_is_products(lib: NumpyAttention) -> None:
    for dtype, shape in ((gf.float32, (1, 2, 4, 8)), (gf.float16, (1, 2, 4, 6))):
        tolerance = 1e-5 if dtype is gf.float32 else 1e-2
        step = compared(gradients(), drawn(9, *[shape] * 4), dtype, tolerance)
        why = "not in float32" if dtype is gf.float32 else "heads have 6 features"
        said = rf"attention: 1 attend in parts: .*{why}.*; 1 attend_gradient in parts"
        assert not lib.calls and re.search(said, str(step.explain()))


def test_products_may_be_ruled_out(lib: NumpyAttention) -> None:
    gf.backends.cuda.enable_math_sdp(False)
    try:
        q = drawn(10, (1, 2, 4, 8))[0].half().cuda()
        gf.compile(lambda x: F.scaled_dot_product_attention(x, x, x))(q)
        with pytest.raises(GraphFlowError, match=r"not in float32; .*\(False\) rules out"):
            gf.compile(lambda x: F.scaled_dot_product_attention(x, x, x))(q.float())
        with pytest.raises(GraphFlowError, match=r"enable_math_sdp\(False\) rules out"):
            F.scaled_dot_product_attention(q, q, q)
    finally:
        gf.backends.cuda.enable_math_sdp(True)
    assert len(lib.calls) == 1


def test_scores_are_whole_on_a_device_unless_they_are_enormous(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention_blocks, "LEAST_BYTES", 0)
    monkeypatch.setattr(attention_blocks, "LEAST_ROWS", 1)
    assert attention_blocks.cut((2, 3), 64, 64, 4, on_device=True) is None
    found = attention_blocks.cut((8, 16), 8192, 8192, 2, on_device=True)
    assert found == attention_blocks.Cut(1, (8, 16), 1024), "eight blocks of 4 GiB"
    given = drawn(11, *[(1, 2, 40, 4)] * 4)
    step = compared(gradients(causal=True), given, gf.float32, 1e-5)
    assert not any(hasattr(s, "trips") for s in step.programs[0].schedule.steps)
    monkeypatch.setattr(attention_blocks, "MOST_BYTES", 2 * 40 * 4 * 16)
    compared(gradients(causal=True), given, gf.float32, 1e-5)


# ---- the binding -----------------------------------------------------------------------


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> attention.Attention:
    monkeypatch.setitem(sys.modules, handles.BINDING, fake_cudnn)
    monkeypatch.setattr(fake_cudnn.pygraph, "made", [])
    found = attention.Attention(0)
    monkeypatch.setattr(routines, "library", lambda device: found)
    return found


@HALVES
@pytest.mark.parametrize("causal", [False, True])
def test_graphs_of_cudnn(cudnn: attention.Attention, half: gf.dtype, causal: bool) -> None:
    shapes = [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 16), (2, 3, 5, 16)]
    step = compared(gradients(causal), drawn(12, *shapes), half, 3e-2)
    assert "1 attend by cuDNN 9.19.0; 1 attend_gradient by cuDNN 9.19.0" in str(step.explain())
    planned = [g for g in fake_cudnn.pygraph.made if "build_plans" in g.done]
    assert len(planned) == 2, "one for each, asked for once more before"


def test_a_step_with_attention_is_replayed(
    cudnn: attention.Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorded(monkeypatch)

    def step(*x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        made = gradients()(*(y + y for y in x))
        return tuple(y + 1 for y in made)

    x = [y.half().cuda().requires_grad_() for y in drawn(18, *[(1, 2, 4, 8)] * 4)]
    compiled = gf.compile(step)
    runs = [[y.detach().cpu().numpy() for y in compiled(*x)] for _ in range(3)]
    assert recorder.replays == 2 and recorder.recorded == [len(kernels_and_calls(compiled))]
    assert all(np.array_equal(a, b) for run in runs for a, b in zip(run, runs[0], strict=True))


def kernels_and_calls(compiled: Any) -> list[Any]:
    return list(plain_steps(compiled.programs[0].schedule.steps))


def test_layers_share_a_graph(cudnn: attention.Attention) -> None:
    def step(x: gf.Tensor) -> gf.Tensor:
        for _ in range(3):
            x = F.scaled_dot_product_attention(x, x, x)
        return x

    x = drawn(13, (1, 2, 4, 8))[0].half()
    found = gf.compile(step)(x.cuda()).cpu().double().numpy()
    np.testing.assert_allclose(found, step(x.double()).numpy(), atol=5e-3)
    assert sum("build_plans" in g.done for g in fake_cudnn.pygraph.made) == 1


def test_equal_bits_are_asked_for(
    cudnn: attention.Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wanted in (False, True):
        monkeypatch.setattr(gf.backends.cuda, "deterministic", wanted)
        fake_cudnn.pygraph.made.clear()
        compared(gradients(), drawn(14, *[(1, 2, 4, 8)] * 4), gf.float16, 1e-2)
        asked = [g.options.get("use_deterministic_algorithm") for g in fake_cudnn.pygraph.made]
        assert set(asked) == ({None, True} if wanted else {None})


def test_what_cudnn_refuses_is_said(
    cudnn: attention.Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_cudnn.pygraph, "refuse", "no engine\n for this")
    step = compared(gradients(), drawn(15, *[(1, 2, 4, 8)] * 4), gf.float16, 1e-2)
    said = "1 attend in parts: cuDNN 9.19.0: no engine for this (attend of queries [1, 2, 4, 8]"
    assert said in str(step.explain())


def test_a_call_that_fails_says_what_cudnn_said(
    cudnn: attention.Attention, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = drawn(16, (1, 2, 4, 8))[0].half().cuda()
    step = gf.compile(lambda x: F.scaled_dot_product_attention(x, x, x))
    step(q)

    def fail(*given: Any, **options: Any) -> None:
        raise RuntimeError("lost")

    monkeypatch.setattr(fake_cudnn.pygraph, "execute", fail)
    with pytest.raises(GraphFlowError, match=r"cuDNN 9.19.0: lost \(attend of queries"):
        step(q)


def test_memory_that_begins_anywhere(cudnn: attention.Attention) -> None:
    whole = drawn(17, (65,))[0].half()
    step = gf.compile(lambda x: F.scaled_dot_product_attention(x, x, x))
    found, wanted = (step(x[1:].view(1, 2, 4, 8)) for x in (whole.cuda(), whole))
    np.testing.assert_allclose(found.cpu().float().numpy(), wanted.float().numpy(), atol=5e-3)
    (start,) = [planned.start for planned in cudnn._known.values()]
    with pytest.raises(GraphFlowError, match=r"multiples of 16 bytes; .*\.clone\(\)"):
        start([32, 32, 34, 32, 32], 0)
