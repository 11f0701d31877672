"""cuDNN's attention itself, beside float64 on the CPU: types, masks, sizes, layouts, replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.runtime.cuda import routines

TOLERANCES = {gf.float16: 4e-3, gf.bfloat16: 3e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


@pytest.fixture(autouse=True)
def there() -> None:
    if isinstance(found := routines.library(0), str):
        pytest.skip(found)


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[gf.Tensor]:
    print("seed", seed)
    rng = np.random.default_rng(seed)
    return [gf.tensor(rng.normal(size=shape)) for shape in shapes]


def gradients(causal: bool) -> Any:
    """A step: attention and the gradients of its operands."""

    def step(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor, ct: gf.Tensor) -> tuple[gf.Tensor, ...]:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return out, *gf.autograd.grad(out, (q, k, v), ct)

    return step


def checked(step: Any, given: list[gf.Tensor], dtype: gf.dtype) -> tuple[Any, list[Any]]:
    """``step`` in ``dtype`` against float64; the compiled step, and its results of four calls."""
    rounded = [x.to(dtype) for x in given]
    compiled = gf.compile(step)
    placed = [x.cuda().requires_grad_() for x in rounded]
    runs = [[x.detach().cpu().double().numpy() for x in compiled(*placed)] for _ in range(4)]
    wanted = [x.detach().numpy() for x in step(*(x.double().requires_grad_() for x in rounded))]
    for found in runs:
        for a, b in zip(found, wanted, strict=True):
            assert np.abs(a - b).max() <= TOLERANCES[dtype] * max(1.0, np.abs(b).max())
    text = str(compiled.explain())
    assert "attention: 1 attend by cuDNN" in text and "1 attend_gradient by cuDNN" in text, text
    assert "host operations: none" in text
    return compiled, runs


@DTYPES
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("features", [32, 64, 128])
def test_sizes_of_heads(dtype: gf.dtype, causal: bool, features: int) -> None:
    checked(gradients(causal), drawn(features, *[(2, 3, 256, features)] * 4), dtype)


@DTYPES
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "source"), [(128, 320), (200, 72), (33, 65), (1, 40)])
def test_other_numbers_of_keys(dtype: gf.dtype, causal: bool, length: int, source: int) -> None:
    shapes = [(2, 2, n, 64) for n in (length, source, source, length)]
    rounded = [x.to(dtype) for x in drawn(length, *shapes)]
    step = gf.compile(gradients(causal))  # cuDNN may leave some of these to products: it says so
    found = step(*(x.cuda().requires_grad_() for x in rounded))
    wanted = gradients(causal)(*(x.double().requires_grad_() for x in rounded))
    print(step.explain())
    for a, b in zip(found, wanted, strict=True):
        b = b.detach().numpy()
        room = TOLERANCES[dtype] * max(1.0, np.abs(b).max())
        assert np.abs(a.detach().cpu().double().numpy() - b).max() <= room


def test_walked_and_replayed_are_the_same_bits() -> None:
    def step(*given: gf.Tensor) -> tuple[gf.Tensor, ...]:
        made = gradients(True)(*(x + x for x in given))
        return tuple(x * 0.5 for x in made)

    gf.backends.cuda.deterministic = True
    try:
        given = [x * 0.25 for x in drawn(5, *[(2, 4, 192, 64)] * 4)]
        compiled, runs = checked(step, given, gf.bfloat16)
    finally:
        gf.backends.cuda.deterministic = False
    assert "CUDA graphs, replayed" in str(compiled.explain())
    for found in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found, runs[0], strict=True))


def test_operands_as_they_lie() -> None:
    """One product makes queries, keys and values, another puts the heads together."""

    def step(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        made = (x @ w).view(2, 128, 3, 4, 64).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(*made.unbind(0), is_causal=True)
        return out.transpose(1, 2).reshape(2, 128, 256)

    x, w = (t.to(gf.bfloat16) for t in drawn(6, (2, 128, 256), (256, 768)))
    w = w * 0.0625
    compiled = gf.compile(step)
    found = compiled(x.cuda(), w.cuda()).cpu().double().numpy()
    np.testing.assert_allclose(found, step(x.double(), w.double()).numpy(), atol=5e-2)
    assert "attention: 1 attend by cuDNN" in str(compiled.explain())
    assert len(compiled.programs[0].schedule.steps) == 2, "nothing is copied"


def test_a_model_learns_as_with_products() -> None:
    losses = []
    for fused in (True, False):
        gf.backends.cuda.enable_cudnn_sdp(fused)
        try:
            gf.manual_seed(0)
            mix, out = gf.nn.Linear(128, 384).cuda(), gf.nn.Linear(128, 128).cuda()
            optimizer = gf.optim.SGD([*mix.parameters(), *out.parameters()], lr=0.5)

            @gf.compile
            def step(
                x: gf.Tensor, y: gf.Tensor, mix: Any = mix, out: Any = out, o: Any = optimizer
            ) -> gf.Tensor:
                o.zero_grad()
                with gf.autocast("cuda", dtype=gf.bfloat16):
                    made = mix(x).view(4, 64, 3, 2, 64).permute(2, 0, 3, 1, 4)
                    heads = F.scaled_dot_product_attention(*made.unbind(0), is_causal=True)
                    found = out(heads.transpose(1, 2).reshape(4, 64, 128)).float()
                loss = (found - y).square().mean()
                loss.backward()
                o.step()
                return loss

            x, y = (t.float().cuda() for t in drawn(7, (4, 64, 128), (4, 64, 128)))
            losses.append([float(step(x, y)) for _ in range(8)])
            said = "by cuDNN" if fused else "in parts: gf.backends.cuda.enable_cudnn_sdp(False)"
            assert f"1 attend {said}" in str(step.explain())
        finally:
            gf.backends.cuda.enable_cudnn_sdp(True)
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-2)
