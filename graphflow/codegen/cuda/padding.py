"""Convolutions that pad by themselves, instead of reading a copy with zeros around."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.cuda.convolution import Convolution, tensor
from graphflow.codegen.layout import Layout
from graphflow.codegen.library import Operand, Padded, Plan
from graphflow.codegen.padded_products import low_of
from graphflow.codegen.schedule import Address, Call
from graphflow.ir.node import Node
from graphflow.records import dataclass, replace


def padded(node: Node, source: Layout, result: Layout, calls: Sequence[Call]) -> Padded | str:
    """What a library has to know of the copy that ``calls`` make of ``source``; empty if they are
    not one."""
    low = low_of(node)
    if len(calls) != 1 or low is None:
        return ""
    places = calls[0].arguments
    if Address(source.buffer) not in places or Address(result.buffer) not in places:
        return ""

    def operand(layout: Layout) -> Operand:
        where = places.index(Address(layout.buffer))
        return Operand(where, layout.offset, layout.type.dtype.short, layout.strides)

    return Padded(operand(source), operand(result), low, source.shape, result.shape)


@dataclass(slots=True)
class _Axis:
    """An axis of an image: so many elements of the source, and how far apart they are; zeros
    before and after."""

    extent: int
    stride: int
    low: int = 0
    high: int = 0


def unpadded(plan: Plan[Convolution], copy: Padded) -> Plan[Convolution] | None:
    """``plan``, whose image is in the result of ``copy``, over the source instead; None if that
    cannot be.  The start of the image counts elements from the source's argument on."""
    asked = plan.asked
    place, start = plan.starts[0][0] - copy.result.offset, copy.source.offset
    at = []
    for stride, extent in zip(copy.result.strides, copy.wide):
        at.append(place // stride if extent > 1 else 0)
        place -= at[-1] * stride
    left = {k for k, extent in enumerate(copy.wide) if extent > 1}
    found: list[_Axis] = []
    for number, (extent, stride) in enumerate(zip(asked.image.extents, asked.image.strides)):
        if extent == 1:
            found.append(_Axis(1, 0))
            continue
        under = [k for k in left if stride % copy.result.strides[k] == 0]
        axis = max(under, key=lambda k: copy.result.strides[k], default=-1)
        if axis < 0:
            return None
        left.remove(axis)
        step = stride // copy.result.strides[axis]
        made = _along(copy, axis, at[axis], extent, step)
        if made is None or ((made[0].low or made[0].high) and number < 2):
            return None
        found.append(made[0])
        start += made[1] * copy.source.strides[axis]
    for axis in left:
        inside = at[axis] - copy.low[axis]
        if not 0 <= inside < copy.extents[axis]:
            return None
        start += inside * copy.source.strides[axis]
    image = tensor(asked.image.dtype, [(x.extent, x.stride) for x in found])
    if image is None or place:
        return None
    low, high = (tuple(getattr(x, side) for x in found[2:]) for side in ("low", "high"))
    made_of = replace(asked, image=image, low=low, high=high)
    return Plan(made_of, plan.places, ((start, *plan.starts[0][1:]),))


def _along(copy: Padded, axis: int, begin: int, count: int, step: int) -> tuple[_Axis, int] | None:
    """``count`` elements of the copy from ``begin`` on along ``axis``: the part of them that the
    source has, and at which element of it that begins."""
    low, size, end = copy.low[axis], copy.extents[axis], begin + (count - 1) * step
    if end >= copy.wide[axis]:
        return None
    first, last = max(begin, low), min(end, low + size - 1)
    if (first, last) != (begin, end) and (step != 1 or first > last):
        return None
    extent = count if step != 1 else last - first + 1
    stride = step * copy.source.strides[axis]
    return _Axis(extent, stride, first - begin, end - last), first - low
