"""What follows a product: a kernel that finishes tiles, and what it is called with."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.codegen.partition import Partition
from graphflow.codegen.schedule import (
    Address,
    Argument,
    BlockAddress,
    Call,
    FunctionAddress,
    KernelSource,
    Value,
)
from graphflow.records import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Epilogue:
    """The ``kernel`` and its argument block.

    ``by_rows`` and ``by_columns`` say of which buffers threads that share the product so touch
    rows of their own.
    """

    kernel: KernelSource
    arguments: tuple[Argument, ...]
    by_rows: Partition = field(default_factory=dict)
    by_columns: Partition = field(default_factory=dict)

    def partition(self, by_columns: bool) -> Partition:
        """The same of all buffers: nothing is a thread's own that nothing is known of."""
        known = self.by_columns if by_columns else self.by_rows
        return {buffer: known.get(buffer) for buffer in _buffers(self.arguments)}


def epilogue_words(epilogue: Epilogue | None) -> tuple[Argument, Argument]:
    """The address of an epilogue and of its arguments; zeros if there is none."""
    if epilogue is None:
        return Value(0), Value(0)
    return FunctionAddress(epilogue.kernel), BlockAddress(epilogue.arguments)


def with_epilogue(call: Call, epilogue: Epilogue | None) -> Call:
    """``call``, which runs ``epilogue``: what that refers to counts as read and as written."""
    touched = _buffers(epilogue.arguments) if epilogue is not None else frozenset()
    return replace(call, reads=call.reads | touched, writes=call.writes | touched)


def _buffers(arguments: Sequence[Argument]) -> frozenset[int]:
    """Every buffer that ``arguments`` refer to."""
    found: set[int] = set()
    for argument in arguments:
        if isinstance(argument, Address):
            found.add(argument.buffer)
        elif isinstance(argument, BlockAddress):
            found |= _buffers(argument.arguments)
    return frozenset(found)
