"""Losses about margins and rankings."""

from __future__ import annotations

from collections.abc import Callable

from graphflow.autocasting import in_float32
from graphflow.checks import need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply
from graphflow.errors import ShapeError
from graphflow.functions.creation import iota
from graphflow.functions.elementwise import (
    add,
    clamp,
    div,
    eq,
    logical_and,
    minimum,
    mul,
    ne,
    neg,
    relu,
    sqrt,
    sub,
    where,
)
from graphflow.functions.norms import pairwise_distance
from graphflow.functions.reductions import any, argmax, sum
from graphflow.functions.shaping import squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.nn.functional.activation import logsigmoid
from graphflow.nn.functional.reduction import chosen, reduced, same_shape
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = [
    "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss",
    "multilabel_margin_loss", "multilabel_soft_margin_loss", "soft_margin_loss",
    "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip


@in_float32
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """x where the target is 1, max(0, margin - x) where it is -1."""
    need_tensor("hinge_embedding_loss", target, "target")
    far = where(ne(target, 1), clamp(sub(margin, input), min=0.0), 0.0)
    near = where(ne(target, -1), input, 0.0)
    return reduced(add(far, near), reduction, size_average, reduce)


@in_float32
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, -target * (input1 - input2) + margin)."""
    ranks = [need_tensor("margin_ranking_loss", x).ndim for x in (input1, input2, target)]
    if len(set(ranks)) != 1:
        raise ShapeError(f"margin_ranking_loss: all inputs need the same rank, got {ranks}")
    loss = clamp(add(mul(neg(target), sub(input1, input2)), margin), min=0.0)
    return reduced(loss, reduction, size_average, reduce)


@in_float32
def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """log(1 + exp(-target * input)), targets 1 and -1."""
    need_tensor("soft_margin_loss", target, "target")
    return reduced(neg(logsigmoid(mul(input, target))), reduction, size_average, reduce)


@in_float32
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1."""
    rank = need_tensor("cosine_embedding_loss", target, "target").ndim
    if rank > 1 or any_rank(input1) != rank + 1 or any_rank(input2) != rank + 1:
        raise ShapeError(
            f"cosine_embedding_loss: target of shape {list(target.shape)} needs inputs with one "
            f"dimension more, got {list(input1.shape)} and {list(input2.shape)}"
        )
    small = 1e-12  # keeps the cosine of a zero vector finite
    product = sum(mul(input1, input2), -1)
    squares = [add(sum(mul(x, x), -1), small) for x in (input1, input2)]
    cosine = div(product, sqrt(mul(*squares)))
    same = where(eq(target, 1), sub(1.0, cosine), 0.0)
    other = where(eq(target, -1), clamp(sub(cosine, margin), min=0.0), 0.0)
    return reduced(add(same, other), reduction, size_average, reduce)


def any_rank(x: Tensor) -> int:
    """The rank of an operand, checked to be a tensor."""
    return need_tensor("cosine_embedding_loss", x).ndim


@beside_operands
@in_float32
def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Mean over classes c of max(0, margin - x[target] + x[c]) ** p, the target's own left out.

    input [N, C] or [C], target [N] or [] of classes; ``weight`` [C] scales by the target's.
    """
    how = chosen(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, not {p}")
    single = need_tensor("multi_margin_loss", input).ndim <= 1
    scores = input.reshape(1, -1) if single else input
    classes = cast(need_tensor("multi_margin_loss", target, "target"), T.int64)
    index = classes.reshape(-1, 1)
    if scores.ndim != 2 or index.shape[0] != scores.shape[0]:
        raise ShapeError(
            f"multi_margin_loss: input of shape {list(input.shape)} does not fit a target of "
            f"shape {list(target.shape)}"
        )
    if weight is not None and tuple(weight.shape) != (scores.shape[1],):
        raise ShapeError(f"multi_margin_loss: weight must hold {scores.shape[1]} numbers")
    own = apply("gather", scores, index, axis=1)
    excess = relu(add(sub(margin, own), scores))
    if p == 2:
        excess = mul(excess, excess)
    if weight is not None:
        excess = mul(excess, apply("take", weight, index, axis=0))
    others = ne(iota(tuple(scores.shape), 1, T.int64), index)
    loss = div(sum(where(others, excess, 0.0), 1), scores.shape[1])
    return reduced(squeeze(loss, 0) if single and target.ndim == 0 else loss, how)


@beside_operands
@in_float32
def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Sum over labels y and other classes c of max(0, 1 - (x[y] - x[c])), over C.

    input [N, C] or [C]; a row of target lists classes, up to the first negative number.
    """
    how = chosen(reduction, size_average, reduce)
    same_shape("multilabel_margin_loss", input, target)
    if input.ndim > 2:
        raise ShapeError(f"multilabel_margin_loss: at most 2 dimensions, not {list(input.shape)}")
    scores = input.reshape(1, -1) if input.ndim < 2 else input
    classes = cast(target, T.int64).reshape(tuple(scores.shape))
    shape = tuple(scores.shape)
    places = iota(shape, 1, T.int64)
    ended = classes < 0
    first = where(any(ended, 1), argmax(cast(ended, T.uint8), 1), shape[1])
    listed = places < unsqueeze(first, 1)
    index = where(listed, classes, 0)
    own = apply("gather", scores, index, axis=1)
    hits = logical_and(unsqueeze(listed, 2), eq(unsqueeze(index, 2), unsqueeze(places, 1)))
    label = any(hits, 1)
    excess = relu(add(sub(1.0, unsqueeze(own, 2)), unsqueeze(scores, 1)))
    counted = logical_and(unsqueeze(listed, 2), unsqueeze(apply("logical_not", label), 1))
    loss = div(sum(where(counted, excess, 0.0), (1, 2)), shape[1])
    return reduced(loss.reshape(tuple(input.shape[:-1])), how)


@in_float32
def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Mean over classes of the binary cross entropy of sigmoid(input)."""
    how = chosen(reduction, size_average, reduce)
    need_tensor("multilabel_soft_margin_loss", input)
    yes, no = mul(target, logsigmoid(input)), mul(sub(1.0, target), logsigmoid(neg(input)))
    loss = neg(add(yes, no))
    if weight is not None:
        loss = mul(loss, weight)
    return reduced(div(sum(loss, -1), input.shape[-1]), how)


@in_float32
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the p-norm's distance.

    ``swap`` takes the positive as the anchor where it is closer to the negative
    (Balntas et al., BMVC 2016).
    """
    how = chosen(reduction, size_average, reduce)
    return triplet_margin_with_distance_loss(
        anchor, positive, negative, margin=margin, swap=swap, reduction=how,
        distance_function=lambda a, b: pairwise_distance(a, b, p, eps),
    )  # fmt: skip


@in_float32
def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """:func:`triplet_margin_loss` with a distance of one's own."""
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, not {margin}")
    ranks = [need_tensor("triplet_margin_loss", x).ndim for x in (anchor, positive, negative)]
    if len(set(ranks)) != 1:
        raise ShapeError(f"triplet_margin_loss: all inputs need the same rank, got {ranks}")
    measure = distance_function or pairwise_distance
    near, far = measure(anchor, positive), measure(anchor, negative)
    if swap:
        far = minimum(far, measure(positive, negative))
    return reduced(clamp(add(sub(near, far), margin), min=0.0), reduction)
