"""Memory set aside for an arena, and how much of it a graph is expected to need."""

import sys
import time
from types import SimpleNamespace

import pytest

import graphflow as gf
from graphflow.codegen.memory import expected_bytes
from graphflow.ir.graph import Graph
from graphflow.runtime import resident
from graphflow.runtime.resident import Reserve

CHAIN = """
graph chain {
  %x: f32[1024] = input(name="x")
  %0: f32[1024] = tanh(%x)
  %1: f32[32,32] = reshape(%0, shape=(32, 32))
  %2: f32[32,32] = exp(%1)
  %3: f32[32,32] = mul(%1, %2)
  %4: f32[32,32] = sin(%3)
  return %4
}
"""


def test_what_is_alive_at_once_is_counted_and_views_are_not():
    # %0 lives until %3 is there, through its view; leaves and results are not in the arena.
    assert expected_bytes(Graph.parse(CHAIN)) == 3 * 4096


def test_symbolic_extents_are_not_guessed():
    x = gf.TensorSpec(("batch", 8))
    assert expected_bytes(gf.trace(lambda x: x.tanh().exp().sin(), x)) == 0


def test_memory_set_aside_is_given_once_and_only_if_it_is_enough():
    expected = resident.LEAST
    reserve = Reserve(expected)
    arena = reserve.take(expected)
    arena.array[:] = 7
    assert arena.nbytes == expected and arena.address % 4096 == 0
    other = reserve.take(expected)
    other.array[:] = 8
    assert arena.array.min() == arena.array.max() == 7
    assert Reserve(expected).take(2 * expected).nbytes == 2 * expected
    assert Reserve(0).take(64).nbytes == 64


def test_memory_of_known_size_becomes_resident_to_its_last_byte():
    nbytes = resident.LEAST + 12_345
    reserve = Reserve(nbytes, exact=True)
    arena = reserve.take(nbytes)
    assert arena.nbytes == nbytes
    if sys.platform == "linux":
        deadline = time.monotonic() + 100
        while reserve.resident < nbytes and time.monotonic() < deadline:
            time.sleep(0.001)
        assert reserve.resident in (0, nbytes)  # 0: no such advice in an older kernel


def test_long_pages_are_asked_for_from_where_one_begins(monkeypatch):
    asked = []

    def advise(address, size, advice):
        asked.append((address, size))
        return 0

    page = 1 << 16  # as some kernels for ARM have them
    monkeypatch.setattr(resident.mmap, "PAGESIZE", page)
    monkeypatch.setattr(resident.ctypes, "CDLL", lambda _: SimpleNamespace(madvise=advise))
    reserve = Reserve(resident.LEAST + 12_345, exact=True)
    if reserve._thread is None:
        pytest.skip("memory is set aside on Linux only")
    reserve._thread.join()
    arena = reserve.take(resident.LEAST + 12_345)
    starts, sizes = zip(*asked, strict=True)
    assert all(start % page == 0 for start in starts)
    assert 0 <= starts[0] - arena.address < page
    assert starts[-1] + sizes[-1] == arena.address + arena.nbytes
