"""How long steps take, roughly: enough to tell what is worth a second thread."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.schedule import UNKNOWN_TRIPS, Branch, Call, Loop, Step

_BYTES_PER_NS, _FLOPS_PER_NS, _CALL_NS = 20.0, 40.0, 30.0
_GUESSED_TRIPS = 10
"""Of loops that end by a condition."""


def estimate_ns(steps: Sequence[Step], shared: bool = False) -> float:
    """A rough time for ``steps`` on one thread: the larger of traffic and arithmetic;
    of what several threads share alone if ``shared``: calls, and whole iterations."""
    total = 0.0
    for step in steps:
        if isinstance(step, Loop):
            trips = _GUESSED_TRIPS if step.trips == UNKNOWN_TRIPS else step.trips
            alone = shared and not step.parallel
            total += trips * sum(estimate_ns(part, alone) for part in step.parts)
        elif isinstance(step, Branch):
            total += max(estimate_ns(part, shared) for part in step.parts)
        elif isinstance(step, Call) and (step.parallel or not shared):
            total += max(step.bytes / _BYTES_PER_NS, step.flops / _FLOPS_PER_NS, _CALL_NS)
    return total


def shared_ns(steps: Sequence[Step]) -> float:
    """The part of :func:`estimate_ns` that several threads would share."""
    return estimate_ns(steps, shared=True)
