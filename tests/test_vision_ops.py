"""Boxes and what detectors need beside them, against counts of pixels and published formulas."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import graphflow as gf
from graphflow.autograd import gradcheck
from graphflow.errors import ShapeError
from graphflow.vision import ops

A = np.array([[0, 0, 4, 4], [2, 1, 6, 5], [8, 8, 9, 9]], np.float32)
B = np.array([[0, 0, 4, 4], [3, 3, 10, 10]], np.float32)


def pixels(box: np.ndarray) -> np.ndarray:
    """The unit squares of a 12 by 12 grid that a box of whole corners covers."""
    grid = np.zeros((12, 12), bool)
    x1, y1, x2, y2 = box.astype(int)
    grid[y1:y2, x1:x2] = True
    return grid


def around(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(a, b)[:2], np.maximum(a, b)[2:]])


def test_overlaps_are_those_of_the_pixels() -> None:
    iou, generalized = np.zeros((3, 2)), np.zeros((3, 2))
    for i, a in enumerate(A):
        for j, b in enumerate(B):
            shared = (pixels(a) & pixels(b)).sum()
            union = (pixels(a) | pixels(b)).sum()
            hull = pixels(around(a, b)).sum()
            iou[i, j] = shared / union
            generalized[i, j] = shared / union - (hull - union) / hull
    a, b = gf.tensor(A), gf.tensor(B)
    for run in (lambda f: f, gf.compile):
        np.testing.assert_allclose(run(ops.box_iou)(a, b).numpy(), iou, rtol=1e-6)
        found = run(ops.generalized_box_iou)(a, b)
        np.testing.assert_allclose(found.numpy(), generalized, rtol=1e-6)
    assert ops.box_area(a).tolist() == [16, 16, 1]
    x = gf.tensor(A + [[0.1, 0.2, 0.3, 0.4]], dtype=gf.float64, requires_grad=True)
    assert gradcheck(lambda x: ops.generalized_box_iou(x, b.double()), x)
    with pytest.raises(ShapeError, match="boxes are"):
        ops.box_iou(a[:, :3], b)


def test_formats_edges_and_small_boxes() -> None:
    a = gf.tensor(A)
    assert ops.box_convert(a, "xyxy", "xywh")[1].tolist() == [2, 1, 4, 4]
    assert ops.box_convert(a, "xyxy", "cxcywh")[1].tolist() == [4, 3, 4, 4]
    for middle in ("xywh", "cxcywh"):
        there = ops.box_convert(a, "xyxy", middle)
        assert gf.equal(ops.box_convert(there, middle, "xyxy"), a)
    assert ops.clip_boxes_to_image(a - 1, (4, 5)).tolist()[:2] == [[0, 0, 3, 3], [1, 0, 5, 4]]
    assert ops.remove_small_boxes(a, 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="a format is one of"):
        ops.box_convert(a, "xyxy", "yxyx")


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    boxes = gf.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3], [1, 0, 5, 4], [8, 8, 9, 9]])
    scores = gf.tensor([0.6, 0.9, 0.3, 0.1])
    assert ops.nms(boxes, scores, 0.5).tolist() == [1, 2, 3]  # 0 by 0.75; 2 is 9/19 of 1
    assert ops.nms(boxes, scores, 0.4).tolist() == [1, 3]
    assert ops.nms(boxes, scores, 0.8).tolist() == [1, 0, 2, 3]
    classes = gf.tensor([0, 1, 0, 0])
    assert ops.batched_nms(boxes, scores, classes, 0.4).tolist() == [1, 0, 3]
    assert ops.batched_nms(boxes - 20, scores, classes, 0.4).tolist() == [1, 0, 3]
    assert ops.nms(boxes[:0], scores[:0], 0.5).shape == (0,)
    with pytest.raises(ShapeError, match="as many scores"):
        ops.nms(boxes, scores[:2], 0.5)


def test_suppression_of_many_boxes_needs_no_table_of_pairs() -> None:
    draw = np.random.default_rng(20261130)
    count = 2000
    corner = draw.uniform(0, 150, (count, 2))
    boxes = np.concatenate([corner, corner + draw.uniform(1, 20, (count, 2))], 1).astype(np.float32)
    scores = draw.permutation(count).astype(np.float32)
    table = ops.box_iou(gf.tensor(boxes), gf.tensor(boxes)).numpy()
    for threshold in (0.1, 0.5):
        expected: list[int] = []
        for i in np.argsort(-scores):
            if not (table[i, expected] > threshold).any():
                expected.append(int(i))
        tracemalloc.start()
        found = ops.nms(gf.tensor(boxes), gf.tensor(scores), threshold)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.tolist() == expected and 100 < len(expected) < count
        assert most < count * count  # bytes: a quarter of such a table


def test_focal_loss_is_its_formula() -> None:
    logits, targets = np.linspace(-3, 3, 7), np.array([0.0, 1, 0, 1, 0, 1, 1])
    right = np.where(targets == 1, 1, -1) * logits
    p = 1 / (1 + np.exp(-right))
    expected = np.where(targets == 1, 0.25, 0.75) * -((1 - p) ** 2) * np.log(p)
    given = gf.tensor(logits), gf.tensor(targets)
    np.testing.assert_allclose(ops.sigmoid_focal_loss(*given).numpy(), expected, rtol=1e-9)
    total = ops.sigmoid_focal_loss(*given, reduction="sum")
    np.testing.assert_allclose(total.item(), expected.sum(), rtol=1e-9)


def test_stochastic_depth_drops_rows_and_keeps_the_mean() -> None:
    gf.manual_seed(20261130)
    x = gf.ones(4000, 3)
    layer = ops.StochasticDepth(0.25, "row")
    for run in (lambda f: f, gf.compile):
        found = run(layer)(x).numpy()
        assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.75)}
        assert (found == found[:, :1]).all() and abs(found.mean() - 1) < 5 * (1 / 3 / 4000) ** 0.5
    assert np.unique(ops.stochastic_depth(x, 0.5, "batch").numpy()).size == 1
    assert layer.eval()(x) is x and repr(layer) == "StochasticDepth(p=0.25, mode=row)"
    assert ops.stochastic_depth(x, 1.0, "row").sum().item() == 0
