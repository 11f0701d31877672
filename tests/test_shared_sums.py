"""Sums through memory that ranks share: here the ranks are threads, each with its own view."""

import itertools
import threading
import time

import numpy as np
import pytest

from graphflow.distributed import shared
from graphflow.distributed.ahead import Group, Vector
from graphflow.distributed.shared import Ring
from graphflow.ir.op import ROOM_HEAD
from graphflow.runtime.storage import address_of
from tests.threads import in_threads

CAPACITY = 4096
COMBINE = {"sum": np.add, "max": np.maximum, "min": np.minimum, "product": np.multiply}


def waiting(request):
    limit = time.monotonic() + 100
    while not request.Test():
        assert time.monotonic() < limit, "a rank never came"
        time.sleep(0)


def together(size, work):
    """Run ``work(ring, rank)`` on ``size`` ranks that share a ring; their results."""
    memory = bytearray(Ring.bytes(CAPACITY, size))
    rings = [Ring(memory, CAPACITY, rank, size, lambda: None) for rank in range(size)]
    return in_threads(size, lambda rank: work(rings[rank], rank))


def messages(seed, size, count):
    """Vectors of all ranks: a list of ``(reduce, [size, n] values)``."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        reduce = str(rng.choice([*COMBINE, "avg", "pairwise_avg"]))
        dtype = rng.choice([np.float32, np.float64, np.int64, np.bool_])
        values = 10 * rng.standard_normal((size, rng.integers(1, 250)))
        made.append((reduce, (values > 0) if dtype == np.bool_ else values.astype(dtype)))
    return made


def expected(reduce, rows):
    if rows.dtype == np.bool_:
        return rows.any(0) if reduce in ("sum", "avg", "pairwise_avg", "max") else rows.all(0)
    while len(rows) > 1:  # pairs of ranks, and pairs of those: the same bits
        pairs = [COMBINE.get(reduce, np.add)(*rows[i : i + 2]) for i in range(0, len(rows) - 1, 2)]
        rows = [*pairs, *rows[len(pairs) * 2 :]]
    return rows[0]


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_ranks_have_the_same_bits_whatever_is_under_way(size):
    seed = size
    print("seed", seed)
    todo = messages(seed, size, 60)

    def work(ring, rank):
        """Begin a few, finish them in an order of this rank's own, again and again."""
        rng, found, begun = np.random.default_rng([seed, rank]), {}, {}
        for number, (reduce, rows) in enumerate(todo):
            sum = ring.begin(Vector(rows.shape[1], rows.dtype, reduce), waiting)
            sum.own[:] = rows[rank]
            sum.publish()
            begun[number] = sum
            if rng.random() < 0.3 or number == len(todo) - 1:
                for key in rng.permutation(list(begun)):
                    into = np.empty_like(
                        rows, shape=begun[key].own.shape, dtype=begun[key].own.dtype
                    )
                    found[key] = begun.pop(key).finish(into if rng.random() < 0.5 else None).copy()
        ring.finish_all()
        return found

    for rank, found in enumerate(together(size, work)):
        for number, (reduce, rows) in enumerate(todo):
            message = f"rank {rank}, message {number}, {reduce} of {rows.dtype}"
            np.testing.assert_array_equal(found[number], expected(reduce, rows), err_msg=message)


def test_a_rank_that_is_ahead_leaves_its_vector_and_waits_where_one_is_still_read():
    """Three vectors of half a ring: the third needs room that the first had."""
    held, log, count = threading.Event(), [], (CAPACITY // 2 - ROOM_HEAD) // 8

    def work(ring, rank):
        sums = []
        for number in range(3):
            if rank and number == 0:
                assert held.wait(100)
            sum = ring.begin(Vector(count, np.dtype(np.float64), "sum"), waiting)
            sum.own[:] = number
            sum.publish()
            log.append((rank, number))
            if (rank, number) == (0, 1):
                assert not sums[0].advance()
                held.set()
            sums.append(sum)
        return [sum.finish().tolist() for sum in sums]

    first, second = together(2, work)
    assert log[:2] == [(0, 0), (0, 1)], "nobody waited for the other"
    assert first == second == [[2.0 * n] * count for n in range(3)]


def test_vectors_are_made_ahead_where_they_are_begun():
    sizes = [CAPACITY // 8, CAPACITY // 4 + 4]
    vectors = [Vector(size // 4, np.dtype(np.float32), "sum", 0.25) for size in sizes]
    group = Group(vectors, lambda what, number: waiting)

    def work(ring, rank):
        sums, places = [], []
        for number in range(5):
            places.append(ring.ahead(group, waiting))
            assert ring.ahead(group, waiting) == places[-1], "asking again changes nothing"
            for vector, place in zip(vectors, places[-1], strict=True):
                sum = ring.begin(vector, waiting)
                assert address_of(sum.own) == sum.address == place
                sum.own[:] = 10 * number + rank
                sum.publish()
                sums.append(sum)
            if rank:
                time.sleep(0.01)
            for sum in sums[-2:]:
                assert set(sum.finish().tolist()) == {(20 * number + 1) / 4}
        return places

    for places in together(2, work):
        for one, next in itertools.pairwise(places):
            assert not {*one} & {*next}, "the step before may still be read"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_of_two_ranks_find_which_has_nan(dtype):
    def work(ring, rank):
        found = []
        for bad in (None, 0, 1):
            sum = ring.begin(Vector(9, np.dtype(dtype), "sum", finite=True), waiting)
            assert sum.looks
            sum.own[:] = 1.0
            if bad == rank:
                sum.own[4] = np.inf if rank else np.nan
            sum.publish()
            sum.finish()
            found.append([(n, (~np.isfinite(row)).nonzero()[0].tolist()) for n, row in sum.faults])
        return found

    for found in together(2, work):
        assert found == [[], [(0, [4])], [(1, [4])]]


def test_memory_is_found_by_those_who_may_and_by_nobody_else(tmp_path, monkeypatch):
    import os

    descriptor, memory = shared.create(8192)
    try:
        other = shared.join(os.getpid(), descriptor, 8192)
        memory[5] = 9
        assert other[5] == 9
        with pytest.raises(OSError, match="another size"):
            shared.join(os.getpid(), descriptor, 4096)
        with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="something else"):
            shared.join(os.getpid(), file.fileno(), 8192)
        monkeypatch.setattr(shared.platform, "machine", lambda: "aarch64")
        with pytest.raises(OSError, match="on x86 only"):
            shared.join(os.getpid(), descriptor, 8192)
    finally:
        os.close(descriptor)
