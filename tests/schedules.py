"""Hand-built schedules over a few real kernels, for the tests of the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphflow.codegen.schedule import (
    Address,
    Argument,
    Buffer,
    BufferKind,
    Call,
    HostCall,
    KernelSource,
    Result,
    Schedule,
    Step,
    Value,
)
from graphflow.ir.types import DType, TensorType, float32
from graphflow.runtime.storage import Storage

_HEAD = """\
from graphflow.codegen.prelude import (
    address_of, call_epilogue, f32, kernel, pointer_at_i64, pointer_f32, pointer_i64, share,
)


@kernel
"""


def kernel(name: str, body: str, epilogue: bool = False) -> KernelSource:
    """A kernel source whose function body is ``body`` (indented by four spaces)."""
    parameters = "args, batch, i0, i1, j0, j1" if epilogue else "args, tid, nth"
    return KernelSource(name, f"{_HEAD}def {name}({parameters}):\n{body}", epilogue)


AFFINE = kernel(  # out = a * b + c
    "rt_affine",
    """\
    a = pointer_f32(args, 0)
    b = pointer_f32(args, 1)
    c = pointer_f32(args, 2)
    out = pointer_f32(args, 3)
    begin, end = share(args[4], tid, nth)
    for i in range(begin, end):
        out[i] = a[i] * b[i] + c[i]
""",
)

ROLL = kernel(  # out[i] = a[(i + 1) % n] + 1: every thread needs its neighbour's share
    "rt_roll",
    """\
    a = pointer_f32(args, 0)
    out = pointer_f32(args, 1)
    n = args[2]
    begin, end = share(n, tid, nth)
    for i in range(begin, end):
        j = i + 1
        if j == n:
            j = 0
        out[i] = a[j] + f32(1.0)
""",
)

SCALE = kernel(  # x = x - rate * g, in place, rate a 0-d buffer
    "rt_scale",
    """\
    x = pointer_f32(args, 0)
    g = pointer_f32(args, 1)
    rate = pointer_f32(args, 2)
    begin, end = share(args[3], tid, nth)
    for i in range(begin, end):
        x[i] = x[i] - rate[0] * g[i]
""",
)

GUARD = kernel(  # out[i] = a[index[i]], failure args[4] if an index is out of range
    "rt_guard",
    """\
    a = pointer_f32(args, 0)
    index = pointer_i64(args, 1)
    out = pointer_f32(args, 2)
    error = pointer_i64(args, 3)
    n = args[5]
    begin, end = share(n, tid, nth)
    for i in range(begin, end):
        k = index[i]
        if k < 0 or k >= n:
            error[0] = args[4]
            k = 0
        out[i] = a[k]
""",
)

COUNT = kernel(  # x[0] += x[1] (int64), one thread
    "rt_count",
    """\
    x = pointer_i64(args, 0)
    x[0] = x[0] + x[1]
""",
)

SET = kernel(  # out[0] = args[1] (int64), one thread
    "rt_set",
    """\
    out = pointer_i64(args, 0)
    out[0] = args[1]
""",
)

DRIVER = kernel(  # calls the epilogue args[0] with block args[1] for args[2] rows of args[3]
    "rt_driver",
    """\
    begin, end = share(args[2], tid, nth)
    call_epilogue(args[0], args[1], 0, begin, end, 0, args[3])
""",
)

DOUBLED = kernel(  # the epilogue: out[i, j] = 2 a[i, j], rows of args[2]
    "rt_doubled",
    """\
    a = pointer_f32(args, 0)
    out = pointer_f32(args, 1)
    for i in range(i0, i1):
        for j in range(j0, j1):
            out[i * args[2] + j] = a[i * args[2] + j] * f32(2.0)
""",
    epilogue=True,
)


class Builder:
    """Collects buffers and steps, and makes the schedule."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.steps: list[Step] = []
        self.offsets: dict[int, int] = {}
        self.failures: list[str] = []
        self.arena = 0

    def buffer(
        self, kind: BufferKind, *shape: int, dtype: DType = float32, data: Any = None
    ) -> int:
        made = Buffer(
            len(self.buffers), kind, TensorType(dtype, shape), f"v{len(self.buffers)}", data
        )
        self.buffers.append(made)
        if kind is BufferKind.ARENA:
            self.offsets[made.id] = self.arena
            size = dtype.itemsize * int(np.prod(shape))
            self.arena += -(-size // 64) * 64
        return made.id

    def input(self, *shape: int, dtype: DType = float32) -> int:
        return self.buffer(BufferKind.INPUT, *shape, dtype=dtype)

    def state(self, *shape: int, dtype: DType = float32) -> int:
        return self.buffer(BufferKind.STATE, *shape, dtype=dtype)

    def output(self, *shape: int, dtype: DType = float32) -> int:
        return self.buffer(BufferKind.OUTPUT, *shape, dtype=dtype)

    def temporary(self, *shape: int) -> int:
        return self.buffer(BufferKind.ARENA, *shape)

    def failure(self, message: str) -> int:
        self.failures.append(message)
        return len(self.failures)

    def call(
        self,
        source: KernelSource,
        arguments: Sequence[Argument | int],
        reads: Iterable[int],
        writes: Iterable[int],
        parallel: bool = True,
        fallible: bool = False,
        bytes: int = 10**9,
    ) -> None:
        """Add a call; integers among ``arguments`` are values."""
        words = tuple(Value(a) if isinstance(a, int) else a for a in arguments)
        step = Call(source, words, frozenset(reads), frozenset(writes), parallel, fallible, bytes)
        self.steps.append(step)

    def affine(self, a: int, b: int, c: int, out: int, n: int, **how: Any) -> None:
        self.call(AFFINE, [*map(Address, (a, b, c, out)), n], (a, b, c), (out,), **how)

    def roll(self, a: int, out: int, n: int, **how: Any) -> None:
        self.call(ROLL, [Address(a), Address(out), n], (a,), (out,), **how)

    def host(self, function: Callable[..., Any], inputs: Sequence[int], output: int) -> None:
        typed = tuple((b, self.buffers[b].type) for b in inputs)
        self.steps.append(
            HostCall(
                "host_op", function, {}, typed, output, frozenset(inputs), frozenset((output,))
            )
        )

    def schedule(self, *results: int | Result) -> Schedule:
        """The schedule whose results are whole buffers, or views of them."""

        def ids(kind: BufferKind) -> tuple[int, ...]:
            return tuple(b.id for b in self.buffers if b.kind is kind)

        state = ids(BufferKind.STATE)
        written = {b for step in self.steps for b in step.writes}
        return Schedule(
            tuple(self.buffers),
            tuple(self.steps),
            ids(BufferKind.INPUT),
            state,
            tuple(self.result(r) if isinstance(r, int) else r for r in results),
            tuple(b for b in state if b in written),
            tuple(self.failures),
            self.offsets,
            self.arena,
        )

    def result(self, buffer: int) -> Result:
        type = self.buffers[buffer].type
        shape = type.static_shape
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        return Result(buffer, type, 0, strides)


def floats(seed: int, *shape: int) -> Storage:
    """A storage of seeded random float32."""
    return Storage(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def chain(n: int, length: int, parallel: bool = True) -> tuple[Schedule, Callable[[Any], Any]]:
    """``length`` rolls of an input through two temporaries, and what NumPy makes of it."""
    b = Builder()
    x, out = b.input(n), b.output(n)
    places = [b.temporary(n), b.temporary(n)]
    source = x
    for number in range(length):
        target = out if number == length - 1 else places[number % 2]
        b.roll(source, target, n, parallel=parallel)
        source = target

    def reference(array: Any) -> Any:
        for _ in range(length):
            array = np.roll(array, -1) + np.float32(1)
        return array

    return b.schedule(out), reference
