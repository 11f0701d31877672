"""What the skeletons share: a group's domain, and how an emitter becomes a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from graphflow.codegen.cpu_writer import held_as, write_kernel
from graphflow.codegen.emit import Emitter
from graphflow.codegen.layout import Layout
from graphflow.codegen.loops import Apply, Choose, Fold, Slot, Value
from graphflow.codegen.schedule import Call
from graphflow.codegen.spaces import Space, Survey, Target, work
from graphflow.ir.types import DType, TensorType, dtype_named, int64
from graphflow.records import dataclass, field

PARALLEL_BYTES = 32 * 1024
PARALLEL_OPERATIONS = 20_000
"""Below both of these a call stays on one thread."""


class LowerContext(Protocol):
    """What lowering needs from the schedule that is being built."""

    @property
    def threads(self) -> int:
        """An upper bound on the number of threads: the size of per-thread scratch."""

    def temporary(self, type: TensorType) -> Layout:
        """A fresh buffer in the arena, row-major."""

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


def finish_call(task: Task, emitter: Emitter, targets: Sequence[Target], found: Survey) -> Call:
    """The call of the kernel that ``emitter`` holds, complete with its cost."""
    kernel = emitter.finish()
    moved, operations = work(task.space, found, targets)
    return Call(
        kernel=write_kernel(kernel),
        arguments=kernel.arguments,
        reads=frozenset(slot.buffer for slot in emitter.read),
        writes=frozenset(slot.buffer for slot in emitter.written),
        parallel=emitter.shared and (moved >= PARALLEL_BYTES or operations >= PARALLEL_OPERATIONS),
        fallible=emitter.fallible,
        bytes=moved,
        flops=operations,
    )
