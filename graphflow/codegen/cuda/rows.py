"""A row for a block of threads: how many of them, and what they hold in registers.

Softmax of rows of 4,096, by 512 threads of two vectors each::

    i = cuda.blockIdx.x
    while i < ni:
        p0 = i * s0
        max0 = f32(-inf)
        for part in range(2):
            j = (cuda.threadIdx.x + part * cuda.blockDim.x) * 4
            if j < nj:
                load_4(a_lanes, part * 4, a, p0 + j)
                for lane in range(4):
                    t0 = a_lanes[part * 4 + lane]
                    max0 = vm.maximum(max0, t0)
        ...  # the threads' maxima meet by halves
        sum0 = f32(0.0)
        for part in range(2):
            ...
                for lane in range(4):
                    t1 = vm.exp(a_lanes[part * 4 + lane] - max0)
                    sum0 = add_fast(sum0, t1)
                    kept[part * 4 + lane] = t1
        ...
        i = ahead(i, cuda.gridDim.x)

What several passes need is read once: rows that fit are held from the first pass that needs them,
and so is what takes long to compute.  Longer rows are read again in each pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.cuda.lanes import NOBODY, Lanes, Team
from graphflow.codegen.cuda.simulator import SIMULATED_THREADS
from graphflow.codegen.cuda.toolchain import is_simulated
from graphflow.codegen.kernel_writer import held_as
from graphflow.codegen.loops import Fold, Load, Value
from graphflow.codegen.passes_plan import EXPENSIVE, Only, Stages, costs
from graphflow.codegen.sizes import is_fixed
from graphflow.codegen.spaces import Plan, operands_of
from graphflow.ir.types import dtype_named

USUAL, MOST = 8, 16
"""Elements of a row that a thread takes if there are enough threads, and at most."""
LEAST_THREADS, MOST_THREADS = 32, 512
WORD = 4
MOST_HELD = 48
"""Registers of a thread that hold what later passes need; with as many for the rest two blocks
of 512 threads fit on a multiprocessor."""


def team_of(plan: Plan, lanes: Lanes) -> Team:
    """Who folds a row; a block of the usual size, in strides, where rows are long or vary."""
    if not is_fixed(plan.depth):
        return NOBODY
    wanted = -(-plan.depth // USUAL)
    most = SIMULATED_THREADS if is_simulated() else MOST_THREADS
    threads = min(max(LEAST_THREADS, 1 << (wanted - 1).bit_length()), most)
    parts = -(-plan.depth // (threads * lanes.count))
    return Team(threads, parts) if parts * lanes.count <= MOST else NOBODY


def plan_held(
    stages: Stages, only_where: Sequence[Only | None], mask: int, each: int,
    bound: Mapping[Value, Value],
) -> list[list[Value]]:  # fmt: skip
    """By pass, the values to hold from there on, of which a thread has ``each``.

    Those are what a later pass needs again, if it is read from memory or takes long to compute.
    ``mask`` has the reduced loops.  A pass that only some rows need leaves nothing behind.
    """
    cost = costs(stages, mask, bound)
    made: dict[Value, int] = {}
    held: dict[Value, int] = {}
    for number, (folds, full) in enumerate(zip(stages.folds, stages.full)):
        roots = [value for fold in folds for value in operands_of(fold)]
        seen: set[Value] = set()
        stack = roots + [target.value for target in full]
        while stack:
            value = bound.get(stack[-1], stack.pop())
            if value in seen or not value.varies & mask:
                continue
            seen.add(value)
            if value in made and (isinstance(value, Load) or cost[value] >= EXPENSIVE):
                held[value] = made[value]
            elif not isinstance(value, Fold):
                stack += operands_of(value)
        if only_where[number] is None:
            made = {**dict.fromkeys(seen, number), **made}
    return _within_room(held, each, len(stages.folds))


def _within_room(held: Mapping[Value, int], each: int, passes: int) -> list[list[Value]]:
    """Those for which there are registers, by pass; what is read from memory goes first."""
    found: list[list[Value]] = [[] for _ in range(passes)]
    room = MOST_HELD
    for value in sorted(held, key=lambda value: not isinstance(value, Load)):
        size = max(WORD, dtype_named(held_as(value.dtype)).itemsize)
        room -= each * size // WORD
        if room >= 0:
            found[held[value]].append(value)
    return found
