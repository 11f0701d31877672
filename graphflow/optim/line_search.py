"""A search along a direction for a point that satisfies the strong Wolfe conditions.

Nocedal and Wright, "Numerical Optimization" (2006), algorithms 3.5 and 3.6, with cubic
interpolation (equation 3.59) kept away from the ends of the bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphflow.records import NamedTuple

DECREASE, CURVATURE = 1e-4, 0.9


class Point(NamedTuple):
    """A place along the direction, with the loss, the gradient and the slope there."""

    place: float
    loss: float
    gradient: Any
    slope: float


def strong_wolfe(
    probe: Callable[[float], Point], start: Point, length: float, size: float, most: int,
    tolerance: float,
) -> Point:  # fmt: skip
    """The best point found with about ``most`` probes; ``size`` is the direction's largest part."""
    before, here, used = start, probe(length), 0
    ends: list[Point] | None = None
    while used < most:
        if _too_high(start, here) or (used > 1 and here.loss >= before.loss):
            ends = [before, here]
            break
        if _level(start, here):
            return here
        if here.slope >= 0:
            ends = [before, here]
            break
        nearest = here.place + 0.01 * (here.place - before.place)
        place = _cubic(before, here, nearest, here.place * 10)
        before, here = here, probe(place)
        used += 1
    if ends is None:
        ends = [start, here]
    return _narrowed(probe, start, ends, size, most - used, tolerance)


def _too_high(start: Point, here: Point) -> bool:
    return here.loss > start.loss + DECREASE * here.place * start.slope


def _level(start: Point, here: Point) -> bool:
    return abs(here.slope) <= -CURVATURE * start.slope


def _narrowed(
    probe: Callable[[float], Point], start: Point, ends: list[Point], size: float, most: int,
    tolerance: float,
) -> Point:  # fmt: skip
    """The bracket made smaller until its lower end will do."""
    low, high = sorted(range(2), key=lambda i: ends[i].loss)
    hesitant = False
    for _ in range(most):
        left, right = sorted(point.place for point in ends)
        if (right - left) * size < tolerance:
            break
        place = _cubic(ends[0], ends[1], left, right)
        place, hesitant = _off_the_ends(place, left, right, hesitant)
        here = probe(place)
        if _too_high(start, here) or here.loss >= ends[low].loss:
            ends[high] = here
            low, high = sorted(range(2), key=lambda i: ends[i].loss)
            continue
        done = _level(start, here)
        if not done and here.slope * (ends[high].place - ends[low].place) >= 0:
            ends[high] = ends[low]
        ends[low] = here
        if done:
            break
    return ends[low]


def _off_the_ends(place: float, left: float, right: float, hesitant: bool) -> tuple[float, bool]:
    """Twice in a row close to an end, or on it: a tenth of the bracket away instead."""
    gap = 0.1 * (right - left)
    if min(right - place, place - left) >= gap:
        return place, False
    if hesitant or place >= right or place <= left:
        nearer_right = abs(place - right) < abs(place - left)
        return (right - gap if nearer_right else left + gap), False
    return place, True


def _cubic(a: Point, b: Point, low: float, high: float) -> float:
    """The minimum of the cubic through both points and slopes, within [low, high]."""
    one = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.place - b.place)
    square = one * one - a.slope * b.slope
    if square < 0:
        return (low + high) / 2
    two = math.sqrt(square)
    first, second = (a, b) if a.place <= b.place else (b, a)
    below = second.slope - first.slope + 2 * two
    if below == 0:
        return (low + high) / 2
    share = (second.slope + two - one) / below
    return min(max(second.place - (second.place - first.place) * share, low), high)
