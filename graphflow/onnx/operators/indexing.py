"""Gathering, scattering, and what depends on values."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.dispatch import apply
from graphflow.ir import types as T
from graphflow.onnx.operators.table import gf, operator
from graphflow.promotion import cast
from graphflow.tensor import Tensor


def _forward(indices: Tensor, extent: Any) -> Any:
    """Positions, those from the end counted from the front."""
    indices = cast(indices, T.int64)
    return gf.where(gf.lt(indices, 0), gf.add(indices, extent), indices)


@operator("Gather")
def gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Any:
    """The slices at these positions of an axis."""
    at = axis % data.ndim
    return apply("take", data, _forward(indices, data.shape[at]), axis=at)


@operator("GatherElements")
def gather_elements(data: Tensor, indices: Tensor, *, axis: int = 0) -> Any:
    """Elements at positions along an axis."""
    return gf.gather(data, axis, _forward(indices, data.shape[axis]))


@operator("GatherND")
def gather_nd(data: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Any:
    """Slices at index tuples, after some axes that both have."""
    b, depth = batch_dims, int(indices.shape[-1])
    lead = tuple(data.shape[:b])
    flat, strides = _flat_axes(data, b, depth)
    place: Any = None
    for k in range(depth):
        part = gf.mul(_forward(indices[..., k], data.shape[b + k]), strides[k])
        place = part if place is None else gf.add(place, part)
    rest = tuple(data.shape[b + depth :])
    if not b:
        return apply("take", flat, place, axis=0)
    rows: Any = 1
    for extent in lead:
        rows = rows * extent
    span = flat.shape[b]
    whole = gf.reshape(flat, (rows * span, *rest))
    batch = gf.mul(gf.arange(rows), span).reshape((*lead, *[1] * (place.ndim - b)))
    return apply("take", whole, gf.add(place, batch), axis=0)


def _flat_axes(data: Tensor, first: int, depth: int) -> tuple[Any, list[Any]]:
    """``data`` with ``depth`` axes as one, and their strides in it."""
    strides: list[Any] = [1] * depth
    for k in range(depth - 2, -1, -1):
        strides[k] = strides[k + 1] * data.shape[first + k + 1]
    span: Any = strides[0] * data.shape[first] if depth else 1
    shape = (*data.shape[:first], span, *data.shape[first + depth :])
    return gf.reshape(data, shape), strides


@operator("ScatterElements", "Scatter")
def scatter_elements(
    data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Any:
    """Elements put at positions along an axis (or added, multiplied, compared)."""
    places = _forward(indices, data.shape[axis])
    if reduction == "none":
        return gf.scatter(data, axis, places, updates)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return gf.scatter_reduce(data, axis, places, updates, reduce=names[reduction])


@operator("ScatterND")
def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Any:
    """Slices put at index tuples (or added, multiplied, compared)."""
    depth = int(indices.shape[-1])
    flat, strides = _flat_axes(data, 0, depth)
    rest = tuple(data.shape[depth:])
    place = gf.zeros(tuple(indices.shape[:-1]), dtype=T.int64)
    for k in range(depth):
        place = gf.add(place, gf.mul(_forward(indices[..., k], data.shape[k]), strides[k]))
    count: Any = 1
    for extent in indices.shape[:-1]:
        count = count * extent
    width: Any = 1
    for extent in rest:
        width = width * extent
    rows = gf.reshape(flat, (flat.shape[0], width))
    at = gf.broadcast_to(gf.reshape(place, (count, 1)), (count, width))
    made = scatter_elements(rows, at, gf.reshape(updates, (count, width)), reduction=reduction)
    return gf.reshape(made, tuple(data.shape))


@operator("TensorScatter")
def tensor_scatter(
    past_cache: Tensor, update: Tensor, write_indices: Tensor | None = None, *, axis: int = -2,
    mode: str = "linear",
) -> Any:  # fmt: skip
    """An update written into a cache along an axis, at a place of its own for every sample."""
    at, extent = axis % past_cache.ndim, past_cache.shape[axis]
    steps = gf.arange(update.shape[at])
    steps = steps.reshape([-1 if k == at else 1 for k in range(update.ndim)])
    if write_indices is not None:
        first = cast(write_indices, T.int64)
        steps = gf.add(steps, first.reshape([-1] + [1] * (update.ndim - 1)))
    if mode == "circular":
        steps = gf.remainder(steps, extent)
    return gf.scatter(past_cache, at, gf.broadcast_to(steps, tuple(update.shape)), update)


@operator("NonZero", known=("X",))
def non_zero(X: Any) -> Any:
    """Where elements are not 0: a row an axis."""
    return gf.tensor(np.array(np.nonzero(X), np.int64).reshape(np.ndim(X), -1))


@operator("Compress", known=("condition",))
def compress(input: Tensor, condition: Any, *, axis: int | None = None) -> Any:
    """The slices (or elements) where a known condition holds."""
    places = gf.tensor(np.flatnonzero(condition).astype(np.int64))
    if axis is None:
        return gf.index_select(gf.reshape(input, (-1,)), 0, places)
    return gf.index_select(input, axis, places)


@operator("Unique", known=("X",))
def unique(X: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    """Distinct elements (or slices), where they first are, which one each is, how often."""
    found = np.unique(X, True, True, True, axis=axis)
    values, first, inverse, counts = (np.asarray(part) for part in found)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        values = np.take(values, order, axis or 0)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        first, counts, inverse = first[order], counts[order], rank[inverse]
    parts = (np.asarray(part, np.int64) for part in (first, inverse, counts))
    return (gf.tensor(values), *map(gf.tensor, parts))


_NMS = ("boxes", "scores", "max_output_boxes_per_class", "iou_threshold", "score_threshold")


@operator("NonMaxSuppression", known=_NMS)
def non_max_suppression(
    boxes: Any, scores: Any, max_output_boxes_per_class: Any = None, iou_threshold: Any = None,
    score_threshold: Any = None, *, center_point_box: int = 0,
) -> Any:  # fmt: skip
    """Boxes that overlap no better one of their class too much: rows (batch, class, box)."""
    most = (
        0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class.reshape(-1)[0])
    )
    overlap = 0.0 if iou_threshold is None else float(iou_threshold.reshape(-1)[0])
    least = -np.inf if score_threshold is None else float(score_threshold.reshape(-1)[0])
    rows = []
    for batch, corners in enumerate(_corners(boxes, center_point_box)):
        for kind, marks in enumerate(scores[batch]):
            chosen = _best(corners, marks, most, overlap, least)
            rows += [(batch, kind, box) for box in chosen]
    return gf.tensor(np.array(rows, np.int64).reshape(-1, 3))


def _first(value: Any, otherwise: float) -> float:
    return otherwise if value is None else float(value.reshape(-1)[0])


def _corners(boxes: Any, centred: int) -> Any:
    if centred:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        return np.concatenate([middle - half, middle + half], -1)
    pairs = np.stack([boxes[..., :2], boxes[..., 2:]])
    return np.concatenate([pairs.min(0), pairs.max(0)], -1)


def _best(corners: Any, marks: Any, most: int, overlap: float, least: float) -> list[int]:
    chosen: list[int] = []
    for box in np.argsort(-marks, kind="stable"):
        if len(chosen) >= most or marks[box] <= least:
            break
        if all(_shared(corners[box], corners[other]) <= overlap for other in chosen):
            chosen.append(int(box))
    return chosen


def _shared(one: Any, other: Any) -> float:
    """The area two boxes share, over the area of both."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    whole = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - both
    return both / whole if whole > 0 else 0.0


@operator("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(X: Tensor, Y: Tensor) -> Any:
    """Elements at positions of the last axis."""
    return apply("take", X, cast(Y.reshape(-1), T.int64), axis=X.ndim - 1)


@operator("Binarizer", domain="ai.onnx.ml")
def binarizer(X: Tensor, *, threshold: float = 0.0) -> Any:
    """1 above a threshold, else 0."""
    return cast(gf.gt(X, threshold), X.dtype)
