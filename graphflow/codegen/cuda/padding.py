"""Convolutions that pad by themselves, instead of reading a copy with zeros around."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    cannot be.  Starts count elements from arguments on."""
    axes = [k for k, extent in enumerate(copy.wide) if extent != 1]
    axes.sort(key=lambda k: -copy.result.strides[k])
    source, result = (
        replace(x, strides=tuple(x.strides[k] for k in axes)) for x in (copy.source, copy.result)
    )
    low, extents, wide = (tuple(x[k] for k in axes) for x in (copy.low, copy.extents, copy.wide))
    forms = _forms(Padded(source, result, low, extents, wide))
    found = (_over_source(plan, form) for form in forms)
    return next((made for made in found if made is not None), None)


def _forms(copy: Padded) -> Iterator[Padded]:
    """The same copy with fewer and fewer axes: those joined that both sides step evenly along, of
    which the inner one has no zeros around."""
    yield copy
    for axis in range(1, len(copy.wide)):
        inner, source, result = copy.extents[axis], copy.source.strides, copy.result.strides
        if copy.wide[axis] == inner and source[axis - 1] == source[axis] * inner:
            rest = slice(axis + 1, None)
            before = slice(0, axis - 1)
            yield from _forms(Padded(
                replace(copy.source, strides=(*source[before], *source[axis:])),
                replace(copy.result, strides=(*result[before], *result[axis:])),
                (*copy.low[before], copy.low[axis - 1] * inner, *copy.low[rest]),
                (*copy.extents[before], copy.extents[axis - 1] * inner, *copy.extents[rest]),
                (*copy.wide[before], copy.wide[axis - 1] * inner, *copy.wide[rest]),
            ))  # fmt: skip


def _over_source(plan: Plan[Convolution], copy: Padded) -> Plan[Convolution] | None:
    """:func:`unpadded` where every axis of the image is one of the copy's."""
    asked = plan.asked
    place, start = plan.starts[0][0] - copy.result.offset, copy.source.offset
    at = []
    for stride in copy.result.strides:
        at.append(place // stride)
        place -= at[-1] * stride
    left = set(range(len(copy.wide)))
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
    low, high = tuple(x.low for x in found[2:]), _as_before(asked, found[2:])
    orders = {x.strides[1] == 1 for x in (image, asked.response) if x.extents[1] > 1}
    if low != high or len(orders) > 1:
        return None  # which the library has fewer kernels for
    made_of = replace(asked, image=image, low=low, high=high)
    return Plan(made_of, plan.places, ((start, *plan.starts[0][1:]),))


def _as_before(asked: Convolution, axes: Sequence[_Axis]) -> tuple[int, ...]:
    """How many zeros there may be after an image: as many as before it, where more positions do
    not come of that."""
    found = []
    taps, places = asked.filter.extents[2:], asked.response.extents[2:]
    for axis, tap, count, step, dilation in zip(
        axes, taps, places, asked.steps, asked.dilations, strict=True
    ):
        room = axis.extent + 2 * axis.low - (tap - 1) * dilation - 1
        same = axis.high < axis.low and room // step + 1 == count
        found.append(axis.low if same else axis.high)
    return tuple(found)


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
