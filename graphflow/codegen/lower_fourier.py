"""Fourier transforms over bundles of lines: plans, tables of roots of unity, calls.

A transform over several axes is one after the other, the later ones where the result lies.
That of a real line of even length is the transform of its pairs of neighbours, as complex
numbers of a line half as long, and a pass that makes of it what is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, prod
from typing import Any

import numpy as np

from graphflow.codegen.fourier_kernels import (
    BLOCK,
    BUNDLE,
    SCALES,
    STRAIGHT,
    WORDS,
    driver_kernel,
    fold_kernel,
    mirror_kernel,
    pass_kernel,
    unfold_kernel,
)
from graphflow.codegen.layout import Layout
from graphflow.codegen.lower_line import address_of, extents_of
from graphflow.codegen.schedule import Argument, Call, FunctionAddress, KernelSource, Value
from graphflow.codegen.sizes import example_of, is_fixed
from graphflow.codegen.task import PARALLEL_OPERATIONS, LowerContext
from graphflow.ir.node import Node
from graphflow.ir.op import Transform
from graphflow.ir.types import TensorType, float64, int64
from graphflow.records import dataclass

GREATEST_FACTOR = 61
"""Prime factors of lengths: a pass takes as many steps an element."""
LONGEST = 1 << 14
"""Elements of a line, so that a bundle stays in the caches of a core."""
FEWEST_LINES = 8
"""With fewer lines most of a vector's lanes would have none."""

_PLAIN = (Transform.REAL, Transform.HERMITIAN)
"""What reads, and what makes, numbers that have no conjugates."""


@dataclass(slots=True)
class _Pass:
    kernel: KernelSource
    roots: np.ndarray[Any, Any]
    words: tuple[int, int]


@dataclass(slots=True)
class _Plan:
    """What is done to the lines along one axis."""

    driver: KernelSource
    read: int
    written: int
    room: int
    passes: Sequence[_Pass]


def lower_transform(
    node: Node, operands: Sequence[Layout], results: Sequence[Layout], context: LowerContext
) -> list[Call] | None:
    """The calls that compute ``node`` from a contiguous operand; None where that would not be
    quick, or lengths are not known."""
    (x,), (result,), attrs, kind = operands, results, node.attrs, node.op.transform
    assert kind is not None
    axes, extents = attrs["axes"], [x.shape[axis] for axis in attrs["axes"]]
    if kind is Transform.HERMITIAN:
        extents[-1] = attrs["extent"]
    if 0 in x.shape or not all(map(is_fixed, extents)) or not _is_quick(x, result, axes, extents):
        return None
    one_by_one = list(zip(axes, extents, [*[Transform.COMPLEX] * (len(axes) - 1), kind]))
    between = result
    if kind is not Transform.HERMITIAN:
        one_by_one.reverse()  # real numbers first
    elif len(axes) > 1:
        between = context.temporary(x.type)
    calls, source = list[Call](), x
    for axis, extent, each in one_by_one:
        last = len(calls) == len(axes) - 1
        target, scale = (result, float(attrs["scale"])) if last else (between, 1.0)
        facts = extent, bool(attrs["inverse"]), scale
        calls.append(_call(each, source, target, axis, *facts, context))
        source = target
    return calls


def _is_quick(x: Layout, result: Layout, axes: Sequence[int], extents: Sequence[int]) -> bool:
    """Whether lines are many enough, short enough, and of lengths with small factors."""
    for axis, extent in zip(axes, extents, strict=True):
        lines = min(prod(map(example_of, y.shape)) // y.shape[axis] for y in (x, result))
        if (
            lines < FEWEST_LINES
            or extent > LONGEST
            or max(factors_of(extent), default=1) > GREATEST_FACTOR
        ):
            return False
    return True


def factors_of(n: int) -> list[int]:
    """The factors of the passes for a transform of ``n``: as few as there are kernels for."""
    twos = (n & -n).bit_length() - 1
    found = [2] if twos == 1 else [4] * {0: 0, 1: 2, 2: 1}[twos % 3]
    found += [8] * ((twos - sum(f.bit_length() - 1 for f in found)) // 3)
    rest, factor = n >> twos, 3
    while rest > 1:
        if factor * factor > rest:
            factor = rest
        while rest % factor == 0:
            found.append(factor)
            rest //= factor
        factor += 2
    return found


def roots_of_unity(n: int, powers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``exp(-2 pi i k / n)`` as pairs of float64, for each of ``powers``.

    Angles are brought below an eighth of the circle in whole numbers: results are as exact as
    cosines and sines of small angles.
    """
    eighths, rest = np.divmod(8 * (powers % n), n)
    odd = eighths % 2 == 1
    angle = np.where(odd, n - rest, rest) * (np.pi / (4 * n))
    near, far = np.cos(angle), np.sin(angle)
    quarter = eighths // 2
    # Within a quarter, the second eighth is the first, mirrored.
    near, far = np.where(odd, far, near), np.where(odd, near, far)
    cosine = np.choose(quarter, [near, -far, -near, far])
    sine = np.choose(quarter, [far, near, -far, -near])
    return np.stack([cosine, -sine], -1)


def _passes(n: int) -> list[_Pass]:
    found, side = [], 1
    left = n
    for radix in factors_of(n):
        left //= radix
        first = 1 if radix in STRAIGHT else 0
        powers = np.arange(left)[:, None] * np.arange(first, radix)
        roots = roots_of_unity(left * radix, powers).reshape(-1)
        if radix not in STRAIGHT:
            own = roots_of_unity(radix, np.arange(radix)).reshape(-1)
            roots = np.concatenate([[radix], np.zeros(SCALES - 1), own, roots])
        found.append(_Pass(pass_kernel(radix), roots, (left, side)))
        side *= radix
    return found


def _plan(kind: Transform, element: str, n: int) -> _Plan:
    if kind is Transform.COMPLEX:
        return _Plan(driver_kernel(element, "complex", "complex"), n, n, n, _passes(n))
    half = n // 2 + 1
    if n % 2:
        passes = _passes(n)
        if kind is Transform.REAL:
            return _Plan(driver_kernel(element, "real", "complex"), n, half, n, passes)
        mirror = _Pass(mirror_kernel(), np.zeros(0), (n, 1))
        return _Plan(driver_kernel(element, "complex", "real"), half, n, n, [mirror, *passes])
    passes, roots = _passes(n // 2), roots_of_unity(n, np.arange(n // 2)).reshape(-1)
    if kind is Transform.REAL:
        fold = _Pass(fold_kernel(), roots, (n // 2, 1))
        driver = driver_kernel(element, "halves", "complex")
        return _Plan(driver, n // 2, half, half, [*passes, fold])
    unfold = _Pass(unfold_kernel(), roots, (n // 2, 1))
    driver = driver_kernel(element, "complex", "halves")
    return _Plan(driver, half, n // 2, half, [unfold, *passes])


def _call(
    kind: Transform,
    x: Layout,
    result: Layout,
    axis: int,
    extent: int,
    inverse: bool,
    scale: float,
    context: LowerContext,
) -> Call:
    """The call that transforms the lines of ``x`` along ``axis``.

    An inverse transform is the conjugate of that of conjugate numbers.
    """
    real = result.type.dtype if kind is Transform.HERMITIAN else result.type.dtype.real
    plan = _plan(kind, real.short, extent)
    outer, _, inner = extents_of(x.shape, axis)
    lines = outer * inner
    read, written = (-1.0 if inverse and kind is not k else 1.0 for k in _PLAIN)
    signs = [scale, written * scale, read, 0.0]
    pieces, told, at = [np.array(signs)], list[Argument](), SCALES
    for one in plan.passes:
        told += [FunctionAddress(one.kernel), *map(Value, (at, *one.words))]
        pieces.append(one.roots)
        at += len(one.roots)
    table = context.constant(np.concatenate(pieces))
    half = plan.room * BUNDLE
    room = context.temporary(TensorType(float64, (context.threads, 2 * half)))
    words = context.temporary(TensorType(int64, (context.threads, WORDS)))
    tile = context.temporary(TensorType(real, (context.threads, BLOCK * BUNDLE)))
    numbers = [y.shape[axis] * (2 if y.type.dtype.is_complex else 1) for y in (x, result)]
    places = (x, result, table, room, words, tile)
    facts = (half, lines, inner, plan.read, numbers[0], plan.written, numbers[1], len(plan.passes))
    work = round(lines * extent * 5 * log2(2 * extent))
    return Call(
        kernel=plan.driver,
        arguments=(*map(address_of, places), *map(Value, facts), *told),
        reads=frozenset((x.buffer, table.buffer)),
        writes=frozenset((result.buffer, room.buffer, words.buffer, tile.buffer)),
        parallel=work >= PARALLEL_OPERATIONS,
        bytes=sum(prod(y.shape) * y.type.dtype.itemsize for y in (x, result)),
        flops=work,
    )
