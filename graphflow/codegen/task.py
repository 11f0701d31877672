"""What the skeletons share: a group's domain, and how an emitter becomes a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from graphflow.codegen.emit import Emitter
from graphflow.codegen.kernel_writer import held_as
from graphflow.codegen.layout import Layout
from graphflow.codegen.library import Numerics
from graphflow.codegen.loops import Apply, Choose, Fold, Kernel, Slot, Value
from graphflow.codegen.partition import Partition, Rows, certain, rows_of, together
from graphflow.codegen.schedule import Call, KernelSource
from graphflow.codegen.sizes import whole
from graphflow.codegen.spaces import Axis, Space, Survey, Target, work
from graphflow.ir.affine import Affine
from graphflow.ir.types import DType, TensorType, dtype_named, int64
from graphflow.records import dataclass, field

PARALLEL_BYTES = 32 * 1024
PARALLEL_OPERATIONS = 20_000
"""Below both of these a call stays on one thread."""
ENOUGH_SHARES = 16
"""Iterations that are enough to share among the threads."""


@dataclass(frozen=True, slots=True)
class Backend:
    """How loops become kernels for one kind of device: its skeletons and its writer.

    ``map`` stores targets over the whole domain, ``reduction`` folds part of it,
    ``scatter`` writes at computed places (its ``leading`` target has the order of the
    loops; two values of the variables in ``apart`` never meet in one place), ``line``
    works on whole lines.  ``open_check`` opens the loops that look for indices out of
    range.  ``contraction`` makes the calls of a product and of what follows it; without
    one, products are packed kernels with epilogues that they call by address.  ``instead``
    makes the calls for an operation that is the host's, unless that is better left to the host, and
    the byte that says that there is no result, if there may be none.  With
    ``whole``, kernels get pointers to whole buffers only.  ``atomic`` lets threads add to
    one place in any order, where that gives more of them work.  A product that a library takes,
    as one of matrices (``matmuls``) or as one of ``convolutions``, is parted from what follows
    it where that is no epilogue; ``numerics`` says what the library may do.  With ``routines``,
    what libraries compute as a whole (:attr:`OpDef.routine`) and was not decomposed is theirs.
    With ``vectors``, memory is read and written several elements at a time: what a program is
    given begins at a multiple of 16 bytes.
    """

    name: str
    map: Callable[[Task, Sequence[Target], Survey], Call]
    reduction: Callable[[Task, Sequence[Target], Survey], list[Call]]
    scatter: Callable[[Task, str, Target, Target, frozenset[str], Survey], Call]
    line: Callable[..., list[Call]]
    open_check: Callable[[Emitter, Sequence[Axis]], None]
    write: Callable[[Kernel], KernelSource]
    contraction: Callable[..., list[Call]] | None = None
    instead: Callable[..., tuple[list[Call], Layout | None] | None] | None = None
    whole: bool = False
    atomic: bool = False
    matmuls: bool = False
    convolutions: bool = False
    numerics: Numerics = Numerics()
    routines: bool = False
    vectors: bool = False


class LowerContext(Protocol):
    """What lowering needs from the schedule that is being built."""

    @property
    def backend(self) -> Backend:
        """The kind of device that is lowered for."""

    @property
    def threads(self) -> int:
        """An upper bound on the number of threads: the size of per-thread scratch."""

    def is_aligned(self, buffer: int) -> bool:
        """Whether ``buffer`` begins where vectors may."""

    def temporary(self, type: TensorType) -> Layout:
        """A fresh buffer in the arena, row-major."""

    def constant(self, array: np.ndarray[Any, Any]) -> Layout:
        """Where ``array`` lies as data of the program."""

    def failure(self, message: str) -> int:
        """The code (1, 2, …) of a failure with this message."""

    def error_buffer(self) -> int:
        """The buffer of the error word."""


@dataclass(slots=True)
class Task:
    """A group being lowered: its domain, and the values that calls before left in memory."""

    space: Space
    context: LowerContext
    error: Slot | None = None
    bound: dict[Value, Value] = field(default_factory=dict)

    def prepare(self, found: Survey) -> None:
        """Make the error word reachable if something that was found can fail."""
        if found.checks and self.error is None:
            self.error = Slot(self.context.error_buffer(), 0, int64)

    def scratch(self, dtype: DType, shape: tuple[int, ...]) -> Slot:
        """A temporary for values of ``dtype`` (half precision is kept as it is held)."""
        layout = self.context.temporary(TensorType(dtype_named(held_as(dtype)), shape))
        return Slot(layout.buffer, layout.offset, layout.type.dtype)

    def is_large(self, found: Survey, targets: Sequence[Target]) -> bool:
        """Whether the targets are enough work for several threads."""
        moved, operations = work(self.space, found, targets)
        return moved >= PARALLEL_BYTES or operations >= PARALLEL_OPERATIONS

    def computes(self, found: Survey) -> bool:
        """False when the targets only move elements."""
        return any(isinstance(v, (Apply, Fold, Choose)) for v in found.values)


def finish_call(
    task: Task,
    emitter: Emitter,
    targets: Sequence[Target],
    found: Survey,
    shared: Axis | None = None,
) -> Call:
    """The call of the kernel that ``emitter`` holds, complete with its cost.

    ``shared`` is the axis whose iterations threads share, if it is one.
    """
    kernel = emitter.finish()
    moved, operations = work(task.space, found, targets)
    return Call(
        kernel=task.context.backend.write(kernel),
        arguments=kernel.arguments,
        reads=frozenset(slot.buffer for slot in emitter.read),
        writes=frozenset(slot.buffer for slot in emitter.written),
        parallel=emitter.shared and (moved >= PARALLEL_BYTES or operations >= PARALLEL_OPERATIONS),
        fallible=emitter.fallible,
        bytes=moved,
        flops=operations,
        items=emitter.items,
        partition=certain(partition_along(shared, task.space, targets, found)) if shared else {},
    )


def partition_along(
    axis: Axis, space: Space, targets: Sequence[Target], found: Survey
) -> Partition:
    """What threads that share ``axis`` have for themselves of the memory of ``targets`` and of
    what they are made of."""
    accesses = [(target.slot, target.index) for target in targets]
    accesses += [(load.slot, load.index) for load in found.loads]
    return together(*({slot.buffer: _rows(axis, space, slot, index)} for slot, index in accesses))


def _rows(axis: Axis, space: Space, slot: Slot, index: Affine) -> Rows | None:
    others = [(name, stride) for name, stride in index.terms if name not in axis.variables]
    if any(name not in space.extents for name, _ in others):
        return None  # data say where
    reach = [(space.extents[name], whole(stride)) for name, stride in others]
    first = slot.offset + whole(index.offset)
    return rows_of(axis.extent, axis.coefficient(index), first, reach, slot.dtype.itemsize)
