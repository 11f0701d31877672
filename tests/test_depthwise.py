"""Convolutions of single channels and of small groups, compiled, and their gradients."""

from itertools import product
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.codegen.target import chosen_target

CASES = (
    ((2, 12, 13, 11), (3, 3), 1, 1, 1),
    ((3, 5, 12, 17), (3, 3), 2, 1, 1),
    ((1, 9, 14, 15), (5, 1), (2, 1), (2, 0), 1),
    ((2, 8, 15, 16), (2, 3), 1, 2, 2),
    ((2, 1, 11, 12), (3, 3), 1, 1, 1),
    # So many taps that vectors run along channels, read once for several taps and places:
    ((2, 40, 16, 29), (7, 7), 1, 3, 1),
    ((2, 17, 13, 14), (5, 5), 2, 2, 1),  # places two pitches apart; a ragged vector
    ((1, 8, 12, 13), (5, 5), 1, 4, 2),  # taps two pitches apart
    ((3, 33, 9, 10), (7, 7), 1, 0, 1),  # nothing padded
    ((2, 16, 31, 33), (5, 5), 4, 1, 1),  # too far apart
    ((2, 24, 14, 40), (1, 17), 1, (0, 8), 1),  # a line of taps that registers do not hold
    ((2, 6, 12, 12), (5, 5), 1, 2, 1),  # too few channels
)


def pair(value: Any) -> tuple[int, int]:
    """One number for both axes, or two."""
    return (value, value) if isinstance(value, int) else value


def convolved(x: Any, w: Any, ct: Any, options: Any) -> tuple[Any, Any, Any]:
    """Result and gradients, tap by tap in float64."""
    steps, pads, spacing = map(pair, options)
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *((p, p) for p in pads)))
    dx, dw, y = np.zeros_like(wide), np.zeros(w.shape), np.zeros(ct.shape)
    for i, j in product(*map(range, w.shape[2:])):
        places = tuple(
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip((i, j), spacing, ct.shape[2:], steps)
        )
        shown, tap = wide[:, :, places[0], places[1]], w[:, 0, i, j].astype(np.float64)
        y += shown * tap[:, None, None]
        dx[:, :, places[0], places[1]] += ct * tap[:, None, None]
        dw[:, 0, i, j] = (shown * ct).sum((0, 2, 3))
    inner = tuple(slice(p, n - p) for p, n in zip(pads, wide.shape[2:]))
    return y, dx[:, :, inner[0], inner[1]], dw


@pytest.mark.parametrize("case, threads", [(CASES[0], 1), *((case, 2) for case in CASES)])
def test_depthwise(case: Any, threads: int) -> None:
    shape, taps, *options = case
    rng = np.random.default_rng(31)
    x = rng.standard_normal(shape, np.float32)
    w = rng.standard_normal((shape[1], 1, *taps), np.float32)
    steps, pads, spacing = map(pair, options)
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(shape[2:], pads, spacing, taps, steps)
    ]
    ct = rng.standard_normal((*shape[:2], *sizes), np.float32)

    def step(x: Any, w: Any, ct: Any) -> Any:
        y = F.conv2d(x, w, None, *options, groups=shape[1])
        return y.detach(), *gf.autograd.grad(y, [x, w], ct)

    before = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        given = [gf.tensor(a, requires_grad=True) for a in (x, w)]
        found = gf.compile(step)(*given, gf.tensor(ct))
    finally:
        gf.set_num_threads(before)
    for got, want in zip(found, convolved(x, w, ct, options), strict=True):
        assert np.abs(got.numpy() - want).max() <= 3e-6 * np.abs(want).max()


GROUPS = (
    # groups, channels of one in and out, image, taps, options, kernel expected
    (8, (4, 4), (11, 17), 3, (1, 1, 1), "along_4_3x1"),
    (7, (2, 2), (9, 8), 5, (1, 2, 1), "along_2_5x1"),  # a ragged vector
    (5, (4, 4), (12, 13), 3, (2, 0, 1), "along_4_3x1"),  # places two pitches apart, no zeros
    (4, (4, 4), (10, 11), 3, (1, 2, 2), "along_4_3x2"),
    (4, (4, 4), (24, 25), 3, (5, 1, 1), "along_4_1x1"),  # too far apart: a tap at a time
    (3, (8, 8), (9, 20), 3, (1, 1, 1), "x1x8"),  # half vectors of columns
    (4, (4, 3), (9, 9), 3, (1, 1, 1), "x1x8"),  # fewer come out than go in
    (1, (5, 3), (16, 10), 1, (1, 0, 1), "f32"),
)


@pytest.mark.parametrize("case", GROUPS, ids=lambda case: "-".join(map(str, case[:2])))
def test_few_channels_a_group(case: Any) -> None:
    """Against the reference in float64; on AVX-512, by the kernels that are made for them."""
    groups, (into, out), image, taps, options, kernel = case
    rng = np.random.default_rng(17)
    x = rng.standard_normal((3, groups * into, *image))
    w = rng.standard_normal((groups * out, into, taps, taps))

    def step(x: Any, w: Any) -> Any:
        y = F.conv2d(x, w, None, *options, groups=groups)
        return y.detach(), *gf.autograd.grad((y * y).sum(), [x, w])

    want = step(*[gf.tensor(a, requires_grad=True) for a in (x, w)])
    compiled = gf.compile(step)
    found = compiled(*[gf.tensor(a.astype(np.float32), requires_grad=True) for a in (x, w)])
    for got, true in zip(found, want, strict=True):
        assert np.abs(got.numpy() - true.numpy()).max() <= 5e-6 * np.abs(true.numpy()).max()
    if chosen_target().vector_bytes == 64:
        calls = compiled.programs[-1].schedule.steps
        assert kernel in " ".join(call.kernel.name for call in calls)
