"""How near boxes are that may not overlap: overlaps with penalties, and losses made of them."""

from __future__ import annotations

import math
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.errors import ShapeError
from graphflow.functions.creation import zeros
from graphflow.functions.elementwise import maximum, minimum
from graphflow.functions.shaping import stack
from graphflow.functions.trigonometry import atan
from graphflow.ir import types as T
from graphflow.tensor import Tensor

__all__ = [
    "complete_box_iou", "complete_box_iou_loss", "distance_box_iou", "distance_box_iou_loss",
    "generalized_box_iou_loss", "masks_to_boxes",
]  # fmt: skip


def _sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersections and unions of boxes that broadcast together."""
    over = minimum(a[..., 2:], b[..., 2:]) - maximum(a[..., :2], b[..., :2])
    shared = over.clamp(min=0).prod(-1)
    (wide, high), (wide_b, high_b) = _sides(a), _sides(b)
    return shared, wide * high + wide_b * high_b - shared


def _hull(a: Tensor, b: Tensor) -> Tensor:
    """The sides of the boxes around both."""
    around: Tensor = maximum(a[..., 2:], b[..., 2:]) - minimum(a[..., :2], b[..., :2])
    return around


def _distance(iou: Tensor, a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Less the squared distance of centres, as a part of the squared diagonal around both."""
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    penalty = between.square().sum(-1) / (_hull(a, b).square().sum(-1) + eps)
    less: Tensor = iou - penalty
    return less


def _complete(iou: Tensor, a: Tensor, b: Tensor, eps: float) -> Tensor:
    """:func:`_distance`, less how different the angles of the diagonals are."""
    (wide, high), (wide_b, high_b) = _sides(a), _sides(b)
    unlike = (4 / math.pi**2) * (atan(wide_b / high_b) - atan(wide / high)).square()
    with no_grad():
        weight = unlike / (1 - iou + unlike + eps)
    less: Tensor = _distance(iou, a, b, eps) - weight * unlike
    return less


def _pairs(name: str, boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both so that each meets each, and their overlaps."""
    for boxes in (boxes1, boxes2):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ShapeError(f"{name}: boxes are [N, 4], not {list(boxes.shape)}")
    a, b = boxes1[:, None], boxes2[None]
    shared, union = _areas(a, b)
    return a, b, shared / union


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Zheng et al. (2020): overlaps of each pair, [N, M], less the distance of their centres."""
    a, b, iou = _pairs("distance_box_iou", boxes1, boxes2)
    return _distance(iou, a, b, eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """:func:`distance_box_iou`, less how different the shapes of the two are."""
    a, b, iou = _pairs("complete_box_iou", boxes1, boxes2)
    return _complete(iou, a, b, eps)


def _loss(name: str, likeness: Tensor, reduction: str) -> Tensor:
    loss: Tensor = 1 - likeness
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction is none, mean or sum, not {reduction!r}")
    if reduction == "none":
        return loss
    total: Tensor = loss.sum() / (max(loss.numel(), 1) if reduction == "mean" else 1)
    return total


def _overlap(name: str, boxes1: Tensor, boxes2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Of each box with its partner; and their unions."""
    if boxes1.shape != boxes2.shape or boxes1.shape[-1:] != (4,):
        raise ShapeError(
            f"{name}: boxes and their partners are [N, 4] both, not {list(boxes1.shape)} and "
            f"{list(boxes2.shape)}"
        )
    shared, union = _areas(boxes1, boxes2)
    return shared / (union + eps), union


def generalized_box_iou_loss(
    boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7
) -> Tensor:
    """1 less the overlap of each box with its partner, and the share of the enclosing box that
    neither covers (Rezatofighi et al., 2019)."""
    iou, union = _overlap("generalized_box_iou_loss", boxes1, boxes2, eps)
    around = _hull(boxes1, boxes2).prod(-1)
    return _loss("generalized_box_iou_loss", iou - (around - union) / (around + eps), reduction)


def distance_box_iou_loss(
    boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7
) -> Tensor:
    """1 less the overlap of each box with its partner, and the distance of their centres."""
    iou, _ = _overlap("distance_box_iou_loss", boxes1, boxes2, eps)
    return _loss("distance_box_iou_loss", _distance(iou, boxes1, boxes2, eps), reduction)


def complete_box_iou_loss(
    boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7
) -> Tensor:
    """:func:`distance_box_iou_loss`, and how different the shapes of the two are."""
    iou, _ = _overlap("complete_box_iou_loss", boxes1, boxes2, eps)
    return _loss("complete_box_iou_loss", _complete(iou, boxes1, boxes2, eps), reduction)


def masks_to_boxes(masks: Tensor) -> Tensor:
    """The first and last column and row of each mask [N, H, W], as boxes; zeros of an empty one."""
    if masks.ndim != 3:
        raise ShapeError(f"masks_to_boxes: masks are [N, H, W], not {list(masks.shape)}")
    if 0 in masks.shape:
        return zeros(masks.shape[0], 4, device=masks.device)
    there = masks != 0
    ends: list[Any] = []
    for other in (1, 2):  # columns, rows
        seen = there.any(other).to(T.int64)
        first, last = seen.argmax(1), seen.shape[1] - 1 - seen.flip(1).argmax(1)
        ends.append((first, last))
    (left, right), (top, bottom) = ends
    corners = stack([left, top, right, bottom], 1) * there.flatten(1).any(1)[:, None]
    return corners.to(T.float32)  # type: ignore[no-any-return]
