"""Copies whose neighbours there are far apart here: transpositions, with zeros around or without.

A loop reads or writes such memory element by element.  This kernel brings blocks of it through
vector registers, as operands of products are packed.  Which part of the result is read, and not
zeros, is a range along each loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

from graphflow.codegen.contraction.tiling import tiling
from graphflow.codegen.loops import Choose, Literal, Load, Within
from graphflow.codegen.schedule import Address, Call, KernelSource, Value
from graphflow.codegen.sizes import greatest, least, whole
from graphflow.codegen.spaces import Axis, Survey, Target, work
from graphflow.codegen.target import chosen_target
from graphflow.codegen.task import PARALLEL_BYTES, Task

LEAST = 16
"""Fewer neighbours, here or there, do not fill a line of a cache."""
RUN = 64
"""Neighbours of the result that are brought there together."""
ELEMENTS = {4: "f32", 8: "f64"}
"""What elements of so many bytes are moved as, whatever they are."""
AXES_AT = 12

_TEXT = '''\
"""out[o, k, l] = a[o, l, k], and zero outside of a range of each"""
from graphflow.codegen.contraction.micro_kernels import pack
from graphflow.codegen.prelude import kernel, pointer_at_{element}, share

LANES = {lanes}
RUN = {run}  # neighbours of out that are brought there together
AXES_AT = {axes_at}


@kernel
def {name}(args, tid, nth):
    a = pointer_at_{element}(args[0])
    out = pointer_at_{element}(args[1])
    outer, axes = args[2], args[3]
    ks, k_low, k_high, out_k = args[4], args[5], args[6], args[7]
    ls, l_low, l_high, a_l = args[8], args[9], args[10], args[11]
    parts = (ls + RUN - 1) // RUN
    unit, last = share(outer * parts, tid, nth)
    while unit < last:
        source, goal, rest, axis, there = a, out, unit // parts, axes, True
        while axis > 0:
            axis -= 1
            word = AXES_AT + 5 * axis
            index = rest % args[word]
            rest //= args[word]
            source = source + index * args[word + 1]
            goal = goal + index * args[word + 2]
            there = there and index >= args[word + 3] and index < args[word + 4]
        l0 = unit % parts * RUN
        l1 = min(ls, l0 + RUN)
        first, after = max(l0, l_low), min(l1, l_high)
        if not there:
            first, after = l1, l0
        begin, end = (k_low, k_high) if first < after and k_low < k_high else (ks, ks)
        for k in range(ks):
            if k < begin or k >= end:
                for l in range(l0, l1):
                    goal[k * out_k + l] = 0
            elif after - first < l1 - l0:
                for l in range(l0, first):
                    goal[k * out_k + l] = 0
                for l in range(after, l1):
                    goal[k * out_k + l] = 0
        if begin < end:
            pack(LANES, out_k, after - first, goal + (k_low * out_k + first),
                 source + (first * a_l + k_low), a_l, 1, after - first, k_high - k_low)
        unit += 1
'''


@cache
def _kernel(element: str, lanes: int) -> KernelSource:
    name = f"copy_turned_{element}_{lanes}"
    text = _TEXT.format(name=name, element=element, lanes=lanes, run=RUN, axes_at=AXES_AT)
    return KernelSource(name, text)


def lower_turned(
    task: Task, axes: Sequence[Axis], targets: Sequence[Target], found: Survey
) -> Call | None:
    """The call that stores the target, if it is such a copy; ``axes`` are its loops."""
    load, bounds = _moved(targets)
    if load is None or len(axes) < 2:
        return None
    (target,), inner = targets, axes[-1]
    size = target.slot.dtype.itemsize
    ranges = _ranges(axes, bounds)
    crossed = next((axis for axis in axes[:-1] if axis.coefficient(load.index) == 1), None)
    if (
        crossed is None
        or ranges is None
        or size not in ELEMENTS
        or load.slot.dtype is not target.slot.dtype
        or load.slot.buffer == target.slot.buffer
        or inner.coefficient(target.index) != 1
        or abs(inner.coefficient(load.index)) <= 1
        or min(inner.extent, crossed.extent) < LEAST
    ):
        return None
    outer = [axis for axis in axes[:-1] if axis is not crossed]
    words = [
        prod(axis.extent for axis in outer), len(outer),
        crossed.extent, *ranges[crossed], crossed.coefficient(target.index),
        inner.extent, *ranges[inner], inner.coefficient(load.index),
    ]  # fmt: skip
    for axis in outer:
        steps = (axis.coefficient(place.index) for place in (load, target))
        words += [axis.extent, *steps, *ranges[axis]]
    moved, _ = work(task.space, found, targets)
    places = [
        Address(place.slot.buffer, (place.slot.offset + whole(place.index.offset)) * size)
        for place in (load, target)
    ]
    return Call(
        kernel=_kernel(ELEMENTS[size], tiling(chosen_target(), size).lanes),
        arguments=(*places, *map(Value, words)),
        reads=frozenset((load.slot.buffer,)),
        writes=frozenset((target.slot.buffer,)),
        parallel=moved >= PARALLEL_BYTES,
        bytes=moved,
    )


def _moved(targets: Sequence[Target]) -> tuple[Load | None, list[Within]]:
    """What is moved to the only target, and the conditions under which it is, else zero."""
    value, conditions = targets[0].value, []
    if isinstance(value, Choose):
        other = value.other
        if not isinstance(other, Literal) or str(other.value) not in ("0", "0.0"):
            return None, []
        conditions.append(value.condition)
        value = value.value
    if len(targets) > 1 or targets[0].depends or targets[0].fold is not None:
        return None, []
    if not isinstance(value, Load) or value.depends:
        return None, []
    conditions += [value.guard] if value.guard is not None else []
    within = [one for one in conditions if isinstance(one, Within) and not one.depends]
    return (value, within) if len(within) == len(conditions) else (None, [])


def _ranges(axes: Sequence[Axis], conditions: Sequence[Within]) -> dict[Axis, list[int]] | None:
    """For each loop, from where to where the conditions hold; None where no such ranges say it."""
    found = {axis: [0, axis.extent] for axis in axes}
    loops = {axis.variables: axis for axis in axes}
    for index, low, high in (bound for within in conditions for bound in within.bounds):
        names = tuple(name for name, step in index.terms if step == 1)
        if names not in loops or len(index.terms) != 1 or index.offset != 0:
            return None
        ends = found[loops[names]]
        ends[0] = ends[0] if low is None else greatest(ends[0], low)
        ends[1] = ends[1] if high is None else least(ends[1], high)
    return found
