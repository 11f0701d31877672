"""Steps that fail change nothing, and host calls run in the middle of a step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from schedules import GUARD, SCALE, Builder, chain, floats

from graphflow.codegen.schedule import Address, BufferKind, Schedule
from graphflow.errors import GraphFlowError
from graphflow.ir.types import int64
from graphflow.runtime.launch import LoadedProgram
from graphflow.runtime.storage import Storage

N = 5000


# --- failures ---------------------------------------------------------------


def guarded(n: int, host: Callable[..., Any] | None = None) -> Schedule:
    """out = a[index], which may fail, then w = w - rate * out."""
    b = Builder()
    a, rate, w, t, out = b.input(n), b.input(), b.state(n), b.temporary(n), b.output(n)
    index = b.input(n, dtype=int64)
    error = b.buffer(BufferKind.ERROR, dtype=int64)
    code = b.failure("take: an index is out of range [0, n)")
    words = [*map(Address, (a, index, t, error)), code, n]
    b.call(GUARD, words, (a, index), (t, error), fallible=True)
    if host is not None:
        b.host(host, [t], out)
    else:
        b.roll(t, out, n)
    b.call(SCALE, [*map(Address, (w, t, rate)), n], (w, t, rate), (w,))
    return b.schedule(out)


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_that_fails_changes_nothing(count: int) -> None:
    program = LoadedProgram(guarded(N), scalars=(1,), threads=count)
    a, w = floats(1, N), floats(2, N)
    program.bind(0, w)
    index = Storage(np.random.default_rng(0).integers(0, N, N))
    for bad in (N - 1, 0, N // 2):
        kept, before = index.array[bad], w.array.copy()
        index.array[bad] = N
        with pytest.raises(GraphFlowError, match=r"an index is out of range \[0, n\)"):
            program.run((a.address, 1.0, index.address))
        np.testing.assert_array_equal(w.array, before)
        index.array[bad] = kept
        program.run((a.address, 1.0, index.address))
        np.testing.assert_allclose(w.array, before - a.array[index.array], rtol=1e-6)


# --- host calls -------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_host_calls_run_between_kernels(count: int) -> None:
    b = Builder()
    x, w, out = b.input(N), b.state(N), b.output(N)
    s, t = b.temporary(N), b.temporary(N)
    b.roll(x, s, N)
    b.host(lambda a, k: np.sort(a) + k, [s, w], t)
    b.roll(t, s, N)
    b.host(lambda a: a[::-1], [s], out)
    program = LoadedProgram(b.schedule(out), threads=count)
    weight = floats(7, N)
    program.bind(0, weight)
    for seed in range(3):
        a = floats(seed, N)
        (result,) = program.run((a.address,))
        expected = np.sort(a.array + 1) + weight.array
        assert result is not None
        np.testing.assert_array_equal(result.array, (np.roll(expected, -1) + 1)[::-1])


def test_a_host_call_that_raises_ends_the_step_without_a_trace() -> None:
    raised: list[BaseException] = [ValueError("no such thing")]

    def sometimes(a: Any) -> Any:
        if raised:
            raise raised.pop()
        return a

    program = LoadedProgram(guarded(N, sometimes), scalars=(1,), threads=2)
    a, w, index = floats(1, N), floats(2, N), Storage(np.arange(N))
    program.bind(0, w)
    before = w.array.copy()
    with pytest.raises(GraphFlowError, match=r"host_op failed: no such thing"):
        program.run((a.address, 1.0, index.address))
    np.testing.assert_array_equal(w.array, before)
    raised.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        program.run((a.address, 1.0, index.address))
    np.testing.assert_array_equal(w.array, before)
    program.run((a.address, 1.0, index.address))
    np.testing.assert_allclose(w.array, before - a.array, rtol=1e-6)


def test_a_host_call_must_keep_its_type() -> None:
    b = Builder()
    x, out = b.input(4), b.output(4)
    b.host(lambda a: a.astype(np.float64), [x], out)
    program = LoadedProgram(b.schedule(out))
    with pytest.raises(GraphFlowError, match=r"float64\[4\] where its type is f32\[4\]"):
        program.run((floats(0, 4).address,))


def test_a_host_call_may_run_another_program_but_not_its_own() -> None:
    schedule, reference = chain(N, 3)
    inner = LoadedProgram(schedule, threads=2)
    b = Builder()
    x, out = b.input(N), b.output(N)
    t = b.temporary(N)
    b.roll(x, t, N)
    program: LoadedProgram

    def other(a: Any) -> Any:
        (found,) = inner.run((Storage(a).address,))
        assert found is not None
        return found.array

    def itself(a: Any) -> Any:
        return program.run((Storage(a).address,))

    b.host(other, [t], out)
    program = LoadedProgram(b.schedule(out), threads=2)
    a = floats(3, N)
    (result,) = program.run((a.address,))
    assert result is not None
    np.testing.assert_array_equal(result.array, reference(np.roll(a.array, -1) + 1))
    b.steps.pop()
    b.host(itself, [t], out)
    program = LoadedProgram(b.schedule(out), threads=2)
    with pytest.raises(GraphFlowError, match="inside one of its own host operations"):
        program.run((a.address,))
