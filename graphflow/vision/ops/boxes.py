"""Boxes, their overlaps, and what detectors and deep networks need beside, by torchvision's names.

Boxes are [N, 4]: (x1, y1, x2, y2) with x1 < x2 and y1 < y2, unless a format says otherwise.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from graphflow.errors import ShapeError
from graphflow.functions.creation import from_numpy
from graphflow.functions.elementwise import maximum, minimum, sigmoid
from graphflow.functions.shaping import stack
from graphflow.nn.functional import binary_cross_entropy_with_logits
from graphflow.nn.module import Module
from graphflow.rng import rand
from graphflow.tensor import Tensor

__all__ = [
    "StochasticDepth", "batched_nms", "box_area", "box_convert", "box_iou", "clip_boxes_to_image",
    "generalized_box_iou", "nms", "remove_small_boxes", "sigmoid_focal_loss", "stochastic_depth",
]  # fmt: skip

Boxes: TypeAlias = np.ndarray[Any, Any]


def _need_boxes(name: str, boxes: Tensor) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"{name}: boxes are [N, 4], not {list(boxes.shape)}")


def box_area(boxes: Tensor) -> Tensor:
    """The area of each box."""
    _need_boxes("box_area", boxes)
    area: Tensor = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _area(low: Tensor, high: Tensor) -> Tensor:
    """Between two corners; 0 where the second does not lie beyond the first."""
    sides = (high - low).clamp(min=0)
    area: Tensor = sides[..., 0] * sides[..., 1]
    return area


def _overlaps(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersections and unions [N, M]."""
    _need_boxes(name, a)
    _need_boxes(name, b)
    low, high = maximum(a[:, None, :2], b[None, :, :2]), minimum(a[:, None, 2:], b[None, :, 2:])
    shared = _area(low, high)
    return shared, box_area(a)[:, None] + box_area(b)[None] - shared


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of each pair, [N, M]."""
    shared, union = _overlaps("box_iou", boxes1, boxes2)
    iou: Tensor = shared / union
    return iou


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Rezatofighi et al. (2019): less the share of the enclosing box that neither covers."""
    shared, union = _overlaps("generalized_box_iou", boxes1, boxes2)
    low = minimum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    around = _area(low, high)
    found: Tensor = shared / union - (around - union) / around
    return found


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Between "xyxy", "xywh" (a corner and sides) and "cxcywh" (the centre and sides)."""
    known = ("xyxy", "xywh", "cxcywh")
    for given in (in_fmt, out_fmt):
        if given not in known:
            raise ValueError(f"box_convert: a format is one of {', '.join(known)}, not {given!r}")
    a, b, c, d = boxes.unbind(-1)
    if in_fmt == "xywh":
        c, d = a + c, b + d
    elif in_fmt == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if out_fmt == "xywh":
        c, d = c - a, d - b
    elif out_fmt == "cxcywh":
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return stack([a, b, c, d], -1)


def clip_boxes_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut at the edges of an image of ``size`` (height, width)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    clipped: Tensor = stack([x, y], -1).reshape(boxes.shape)
    return clipped


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Indices of the boxes whose sides are at least ``min_size``."""
    _need_boxes("remove_small_boxes", boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    found: Tensor = (sides >= min_size).all(1).nonzero()[:, 0]
    return found


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes to keep, the best first: none overlaps a better one by more.

    How many there are depends on the values, so it is no part of a compiled function.
    """
    _need_boxes("nms", boxes)
    if scores.shape != boxes.shape[:1]:
        raise ShapeError(f"nms: {boxes.shape[0]} boxes need as many scores, not {scores.shape}")
    order = np.argsort(-scores.detach().cpu().numpy(), kind="stable")
    corners = np.ascontiguousarray(boxes.detach().cpu().numpy().T)
    kept: list[int] = []
    while len(order):  # the best few among themselves, then what is left of the others
        block, order = order[:_BLOCK], order[_BLOCK:]
        over = _iou(corners[:, block], corners[:, block]) > np.float64(iou_threshold)
        stays: list[int] = []
        for i in range(len(block)):
            if not over[i, stays].any():
                stays.append(i)
        best = block[stays]
        kept += best.tolist()
        covered = _iou(corners[:, best], corners[:, order]) > np.float64(iou_threshold)
        order = order[~covered.any(0)]
    found: Tensor = from_numpy(np.array(kept, np.int64)).to(boxes.device)
    return found


_BLOCK = 16
"""Boxes that :func:`nms` compares with all others at once."""


def _iou(a: Boxes, b: Boxes) -> Boxes:
    """:func:`box_iou` of arrays with a row for each coordinate."""
    own, other = ((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    left, top, right, bottom = (side[:, None] for side in a)
    shared = np.maximum(np.minimum(right, b[2]) - np.maximum(left, b[0]), 0)
    shared *= np.maximum(np.minimum(bottom, b[3]) - np.maximum(top, b[1]), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(shared / (own[:, None] + other - shared))


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """:func:`nms` among the boxes of each class of ``idxs``."""
    if not boxes.numel():
        return nms(boxes, scores, iou_threshold)
    span = boxes.max() - boxes.min() + 1  # so far apart no class reaches another
    apart = idxs.to(boxes.dtype) * span
    return nms(boxes + apart[:, None], scores, iou_threshold)


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2,
    reduction: str = "none",
) -> Tensor:  # fmt: skip
    """Lin et al. (2017): cross entropy of logits, less of it where they are right already."""
    p = sigmoid(inputs)
    right = p * targets + (1 - p) * (1 - targets)
    loss = binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    loss = loss * (1 - right) ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction!r} is not a valid value for reduction: mean, sum or none")
    total: Tensor = loss if reduction == "none" else getattr(loss, reduction)()
    return total


def stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """Huang et al. (2016): at probability ``p`` zeros, else more; by "row" or the whole "batch"."""
    if not 0 <= p <= 1:
        raise ValueError(f"stochastic_depth: p must be between 0 and 1, not {p}")
    if mode not in ("batch", "row"):
        raise ValueError(f"stochastic_depth: mode is 'batch' or 'row', not {mode!r}")
    if not training or p == 0:
        return input
    rows = input.shape[0] if mode == "row" else 1
    keep = rand((rows, *[1] * (input.ndim - 1)), device=input.device) >= p
    scaled: Tensor = input * keep if p == 1 else input * keep / (1 - p)
    return scaled


class StochasticDepth(Module):
    """:func:`stochastic_depth` while training."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, input: Tensor) -> Tensor:
        """Same shape."""
        return stochastic_depth(input, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        """torchvision's spelling."""
        return f"p={self.p}, mode={self.mode}"
