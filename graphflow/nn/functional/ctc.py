"""Connectionist temporal classification (Graves et al., ICML 2006)."""

from __future__ import annotations

from typing import Any

from graphflow.autocasting import in_float32
from graphflow.checks import need_floating, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply
from graphflow.errors import ShapeError
from graphflow.functions.creation import as_tensor, full, iota
from graphflow.functions.elementwise import (
    add,
    clamp,
    eq,
    exp,
    gt,
    log,
    logical_and,
    lt,
    mul,
    ne,
    neg,
    sub,
    where,
)
from graphflow.functions.reductions import mean, sum
from graphflow.functions.shaping import cat, cut, select, squeeze, unsqueeze
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.nn.functional.reduction import chosen
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = ["ctc_loss"]

NEVER = -1e30
"""Stands for log 0: finite, so that no gradient becomes NaN."""


@beside_operands
@in_float32
def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """Minus the log-probability that the outputs spell the targets, blanks and repeats aside.

    log_probs [T, N, C] or [T, C]; targets [N, S], or all targets one after the other;
    lengths [N].  The mean is over the batch, each loss over its target's length.
    ``zero_infinity``: targets that do not fit count as 0.
    """
    how = chosen(reduction, None, None)
    need_floating("ctc_loss", need_tensor("ctc_loss", log_probs))
    single = log_probs.ndim == 2
    scores = unsqueeze(log_probs, 1) if single else log_probs
    if scores.ndim != 3 or not 0 <= blank < scores.shape[2]:
        raise ShapeError(
            f"ctc_loss: log_probs of shape {list(log_probs.shape)} must be [T, N, C] or [T, C], "
            f"and blank {blank} one of its classes"
        )
    steps, batch, _ = scores.shape
    times, sizes = (
        cast(as_tensor(v), T.int64).reshape(-1) for v in (input_lengths, target_lengths)
    )
    if times.shape != (batch,) or sizes.shape != (batch,):
        raise ShapeError(f"ctc_loss: lengths must hold {batch} numbers, one a sample")
    _check_lengths(times, steps)
    labels = _rows(cast(need_tensor("ctc_loss", targets, "targets"), T.int64), sizes, batch)
    loss = neg(_log_likelihood(scores, labels, times, sizes, blank))
    lost = gt(loss, 1e29)
    loss = where(lost, 0.0 if zero_infinity else float("inf"), loss)
    loss = add(loss, where(lost, 0.0, _normalised_slope(scores, times)))
    if how == "mean":
        return mean(loss / cast(clamp(sizes, min=1), loss.dtype))
    if how == "sum":
        return sum(loss)
    return squeeze(loss, 0) if single else loss


def _check_lengths(times: Tensor, steps: int) -> None:
    if mode.tracer is None and times.numel():
        values = times.tolist()
        if max(values) > steps or min(values) < 0:
            raise ValueError(f"ctc_loss: input_lengths must be within 0 and {steps}: {values}")


def _rows(targets: Tensor, sizes: Tensor, batch: int) -> Tensor:
    """Targets as [N, S]; those given one after the other are cut apart."""
    if targets.ndim == 2:
        return targets
    total = targets.shape[0]
    longest = total if mode.tracer is not None else max([0, *sizes.tolist()])
    before = iota((batch, batch), 1, T.int64) < iota((batch, batch), 0, T.int64)
    starts = sum(where(before, unsqueeze(sizes, 0), 0), 1)
    places = add(unsqueeze(starts, 1), iota((batch, longest), 1, T.int64))
    if not total:
        return cut(places, 1, 0, 0, 1)
    return apply("take", targets, clamp(places, max=total - 1), axis=0)


def _log_likelihood(
    scores: Tensor, labels: Tensor, times: Tensor, sizes: Tensor, blank: int
) -> Tensor:
    """The forward variables: over labels with blanks between, one time step after the other."""
    steps, batch, classes = scores.shape
    width = 2 * labels.shape[1] + 1
    spelled = _with_blanks(labels, sizes, blank, classes)
    places = iota((batch, width), 1, T.int64)
    # A label may follow the one before the blank if it is another one.
    jump = logical_and(ne(spelled, blank), ne(spelled, _shifted(spelled, 2, blank)))
    at = apply("gather", select(scores, 0, 0), spelled, axis=1) if steps else None
    if at is None:
        alive: Tensor = full((batch, width), NEVER, dtype=scores.dtype)
        alive = where(eq(places, 0), 0.0, alive)
    else:
        alive = where(lt(places, 2), at, NEVER)
    for step in range(1, steps):
        at = apply("gather", select(scores, 0, step), spelled, axis=1)
        skipped = where(jump, _shifted(alive, 2, NEVER), NEVER)
        moved = add(_log_sum(alive, _shifted(alive, 1, NEVER), skipped), at)
        alive = where(unsqueeze(gt(times, step), 1), moved, alive)
    ends = unsqueeze(mul(sizes, 2), 1)
    last = apply("gather", alive, ends, axis=1)
    label = apply("gather", alive, clamp(sub(ends, 1), min=0), axis=1)
    label = where(gt(ends, 0), label, NEVER)
    return squeeze(_log_sum(last, label, full((batch, 1), NEVER, dtype=scores.dtype)), 1)


def _with_blanks(labels: Tensor, sizes: Tensor, blank: int, classes: int) -> Tensor:
    """blank, label, blank, …, blank; what is beyond a target's length is blank."""
    batch, length = labels.shape
    real = lt(iota((batch, length), 1, T.int64), unsqueeze(sizes, 1))
    held = unsqueeze(where(real, labels, blank), 2)
    between = full((batch, length, 1), blank, dtype=T.int64)
    pairs = cat([between, held], 2).reshape(batch, 2 * length)
    return cat([pairs, full((batch, 1), blank, dtype=T.int64)], 1)


def _shifted(x: Tensor, by: int, value: Any) -> Tensor:
    """``x`` moved to the right along dimension 1, ``value`` coming in."""
    batch, width = x.shape
    if width <= by:
        return full((batch, width), value, dtype=x.dtype)
    return cat([full((batch, by), value, dtype=x.dtype), x[:, : width - by]], 1)


def _log_sum(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """log(e^a + e^b + e^c)."""
    high = a.detach()
    for other in (b.detach(), c.detach()):
        high = where(gt(other, high), other, high)
    return add(log(add(add(exp(sub(a, high)), exp(sub(b, high))), exp(sub(c, high)))), high)


def _normalised_slope(scores: Tensor, times: Tensor) -> Tensor:
    """0, with the gradient e^log_prob, which PyTorch has.

    It takes ``log_probs`` to come from log_softmax, through which the term vanishes.
    """
    steps, batch, _ = scores.shape
    probabilities = exp(scores)
    inside = lt(iota((steps, batch), 0, T.int64), unsqueeze(times, 0))
    nothing = sub(probabilities, probabilities.detach())
    return sum(where(unsqueeze(inside, 2), nothing, 0.0), (0, 2))
