"""Parts of feature maps, against loops over their samples and pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.autograd import gradcheck
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.vision import ops

Array = np.ndarray[Any, Any]


def drawn() -> tuple[Array, Array]:
    """Feature maps with equal pixels, and boxes that begin before and end beyond them."""
    draw = np.random.default_rng(20261130)
    maps = np.maximum(draw.standard_normal((2, 3, 9, 11)), 0)
    boxes = np.concatenate([draw.integers(0, 2, (7, 1)), draw.uniform(-4, 18, (7, 2))], 1)
    return maps, np.concatenate([boxes, boxes[:, 1:] + draw.uniform(-2, 20, (7, 2))], 1)


def interpolated(image: Array, y: float, x: float) -> Any:
    """Between four pixels; 0 more than a pixel beyond the edge, and the edge's before that."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    up, left = int(y), int(x)
    down, right = min(up + 1, height - 1), min(left + 1, width - 1)
    b, r = y - up, x - left
    upper = image[:, up, left] * (1 - r) + image[:, up, right] * r
    lower = image[:, down, left] * (1 - r) + image[:, down, right] * r
    return upper * (1 - b) + lower * b


def aligned_by_loops(
    maps: Array, boxes: Array, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Array:
    found = np.zeros((len(boxes), maps.shape[1], *size))
    for k, (image, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (c * scale - 0.5 * aligned for c in corners)
        spans = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        high, wide = spans[0] / size[0], spans[1] / size[1]
        rows, columns = (ratio, ratio) if ratio > 0 else (math.ceil(high), math.ceil(wide))
        for i, j in np.ndindex(size):
            for a in range(rows):
                for b in range(columns):
                    y = y1 + (i + (a + 0.5) / rows) * high
                    x = x1 + (j + (b + 0.5) / columns) * wide
                    found[k, :, i, j] += interpolated(maps[int(image)], y, x) / (rows * columns)
    return found


@pytest.mark.parametrize("ratio", [2, 3, -1])
@pytest.mark.parametrize("aligned", [False, True])
def test_means_of_samples_in_boxes(ratio: int, aligned: bool) -> None:
    maps, boxes = drawn()
    expected = aligned_by_loops(maps, boxes, (3, 4), 0.5, ratio, aligned)
    x, where = gf.tensor(maps, requires_grad=True), gf.tensor(boxes)

    def parts(x: gf.Tensor, where: gf.Tensor) -> gf.Tensor:
        return ops.roi_align(x, where, (3, 4), 0.5, ratio, aligned)

    found = parts(x, where)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-9)
    assert found.is_contiguous() and gradcheck(lambda x: parts(x, where[:3]), x)
    layer = ops.RoIAlign((3, 4), 0.5, ratio, aligned)
    assert gf.equal(layer(x, where), found) and f"aligned={aligned}" in repr(layer)
    listed = [where[where[:, 0] == i][:, 1:] for i in range(2)]
    order = np.argsort(boxes[:, 0], kind="stable")
    assert gf.equal(layer(x, listed), found[gf.tensor(order)])
    if ratio > 0:

        def step(x: gf.Tensor, where: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            out = parts(x, where)
            return out, gf.autograd.grad(out.square().sum(), [x])[0]

        for one, other in zip(gf.compile(step)(x, where), step(x, where), strict=True):
            np.testing.assert_allclose(one.detach(), other.detach(), rtol=1e-9, atol=1e-12)
    else:
        with pytest.raises(TraceError, match="give a sampling_ratio above 0"):
            gf.compile(parts)(x, where)


def pooled_by_loops(
    maps: Array, boxes: Array, size: tuple[int, int], scale: float
) -> tuple[Array, Array]:
    """The largest pixels, and a gradient of the maps: the sum of the first largest ones."""
    found, gradient = np.zeros((len(boxes), maps.shape[1], *size)), np.zeros_like(maps)
    for k, (image, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(c * scale) + 0.5), c)) for c in corners)
        high, wide = max(y2 - y1 + 1, 1) / size[0], max(x2 - x1 + 1, 1) / size[1]
        for i, j in np.ndindex(size):
            rows = [y1 + y for y in range(math.floor(i * high), math.ceil((i + 1) * high))]
            columns = [x1 + x for x in range(math.floor(j * wide), math.ceil((j + 1) * wide))]
            places = [(y, x) for y in rows for x in columns if 0 <= y < 9 and 0 <= x < 11]
            for c in range(maps.shape[1] if places else 0):
                pixels = [maps[int(image), c, y, x] for y, x in places]
                found[k, c, i, j] = max(pixels)
                gradient[(int(image), c, *places[int(np.argmax(pixels))])] += 1
    return found, gradient


@pytest.mark.parametrize("size", [(2, 2), (3, 4), (7, 7)])
@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_largest_pixels_in_boxes(jit: Any, size: tuple[int, int]) -> None:
    maps, boxes = drawn()
    expected, gradient = pooled_by_loops(maps, boxes, size, 0.5)
    layer = ops.RoIPool(size, 0.5)

    def step(x: gf.Tensor, where: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        out = layer(x, where)
        return out, gf.autograd.grad(out.sum(), [x])[0]

    out, dx = jit(step)(gf.tensor(maps, requires_grad=True), gf.tensor(boxes))
    np.testing.assert_array_equal(out.detach(), expected)
    np.testing.assert_array_equal(dx, gradient)
    assert repr(layer) == f"RoIPool(output_size={size}, spatial_scale=0.5)"


def test_no_boxes_and_wrong_ones() -> None:
    maps = gf.zeros(2, 3, 9, 11)
    for call in (ops.roi_align, ops.roi_pool):
        assert call(maps, gf.zeros(0, 5), 2).shape == (0, 3, 2, 2)
        assert call(maps, [gf.zeros(0, 4), gf.zeros(1, 4)], 2).shape == (1, 3, 2, 2)
        with pytest.raises(ShapeError, match=r"are \[K, 5\], the number of the image first"):
            call(maps, gf.zeros(2, 4), 2)
        with pytest.raises(ShapeError, match=r"the boxes of an image are \[L, 4\]"):
            call(maps, [gf.zeros(2, 5)], 2)
        with pytest.raises(ShapeError, match="boxes of 3 images for 2"):
            call(maps, [gf.zeros(2, 4)] * 3, 2)
        with pytest.raises(ShapeError, match=r"feature maps are \[N, C, H, W\]"):
            call(maps[0], gf.zeros(2, 5), 2)
        with pytest.raises(DTypeError, match="input is float32 and boxes float64"):
            call(maps, gf.zeros(2, 5, dtype=gf.float64), 2)
