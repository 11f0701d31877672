"""Sums that kernels begin and finish for two ranks, here two threads, and Python beside them."""

import ctypes
import itertools
import threading

import numpy as np
import pytest
from test_shared_sums import CAPACITY, together, waiting

from graphflow.codegen.schedule import KernelSource
from graphflow.distributed.ahead import Group, Vector
from graphflow.distributed.board import Board, description
from graphflow.ir.op import ROOM_HEAD
from graphflow.ir.ops.shared_sums import BEGIN, FINISH, Head
from graphflow.runtime.cache import load
from graphflow.runtime.storage import address_of

F32 = np.dtype(np.float32)
MANY = 1 << 40  # looks: the other rank always comes
LONGEST = 90  # values of a vector: three of them fit twice into a row
assert 6 * Vector(LONGEST, F32, "sum").room <= CAPACITY


@pytest.fixture(scope="module")
def kernels():
    """The kernels as functions of addresses; what they return is whether they did it."""
    sources = [KernelSource(*BEGIN), KernelSource(*FINISH)]
    addresses = load(sources).addresses
    native = [ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(addresses[s.name]) for s in sources]

    def wrap(call):
        def run(*values):
            words = (ctypes.c_int64 * 8)(-1, *values)
            call(ctypes.addressof(words), 0, 1)
            assert words[0] in (0, 1)
            return bool(words[0])

        return run

    return [wrap(call) for call in native]


def at(address, count):
    """The float32 values at an address."""
    return np.frombuffer((ctypes.c_float * count).from_address(address), np.float32)


def group_of(*vectors, looks=MANY):
    return Group(vectors, lambda what, number: waiting, looks=looks)


def test_a_head_has_room():
    assert 8 * len(Head) <= ROOM_HEAD and ROOM_HEAD % 64 == 0


@pytest.mark.parametrize("seed", range(3))
def test_whoever_begins_and_finishes_all_ranks_have_the_same_bits(kernels, seed):
    """Kernels or Python, as each rank likes: vectors of one step, in the order they were begun."""
    begin, finish = kernels
    print("seed", seed)
    rng = np.random.default_rng(seed)
    steps = [rng.integers(1, LONGEST, rng.integers(1, 4)).tolist() for _ in range(60)]
    rows = [[rng.standard_normal((2, n)).astype(np.float32) for n in step] for step in steps]

    def work(ring, rank):
        own, found = np.random.default_rng([seed, rank]), []
        for step, values in zip(steps, rows, strict=True):
            group = group_of(*(Vector(n, F32, "avg", 0.5, True) for n in step))
            rooms = ring.ahead(group, waiting)
            tickets, begun = np.zeros(len(step), np.int64), {}
            for k, (room, n) in enumerate(zip(rooms, step, strict=True)):
                at(room, n)[:] = values[k][rank]
                ticket = address_of(tickets[k:])
                if own.random() < 0.3 or not begin(0, room, ticket):
                    begun[k] = ring.begin(group.vectors[k], waiting)
                    begun[k].own[:] = values[k][rank]
                    begun[k].publish()
                    tickets[k] = 1 + k
            for k, n in enumerate(step):
                out = np.full(n, np.nan, np.float32)
                if own.random() < 0.3 or not finish(address_of(tickets[k:]), address_of(out)):
                    sum = begun.get(k) or ring.begun_at(-int(tickets[k]))
                    sum.finish(out)
                    assert not sum.faults
                found.append(out)
        ring.finish_all()
        return found

    expected = [np.float32(0.5) * (a + b) for a, b in itertools.chain(*rows)]
    for found in together(2, work):
        for one, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, right)


def test_steps_by_kernels_alone_use_both_halves_of_a_row_in_turn(kernels):
    begin, finish = kernels

    def work(ring, rank):
        ticket, out, places = np.zeros(1, np.int64), np.zeros(100, np.float32), []
        group = group_of(Vector(100, F32, "sum", finite=True))
        for step in range(9):
            [room] = ring.ahead(group, waiting)
            places.append(room)
            at(room, 100)[:] = step + rank
            assert begin(0, room, address_of(ticket)) and ticket[0] < 0
            assert not begin(0, room, address_of(ticket)), "it has been begun"
            assert finish(address_of(ticket), address_of(out))
            assert not finish(address_of(ticket), address_of(out)), "it has been finished"
            assert set(out.tolist()) == {2.0 * step + 1}
        return places

    for places in together(2, work):
        assert all(a != b for a, b in itertools.pairwise(places)), "the other may still read it"


def test_what_is_wrong_is_left_to_python(kernels):
    begin, finish = kernels

    def work(ring, rank):
        ticket, out = np.zeros(1, np.int64), np.zeros(9, np.float32)
        group = group_of(Vector(9, F32, "sum", finite=True))
        [room] = ring.ahead(group, waiting)
        at(room, 9)[:] = [1, np.inf if rank else 1, *[1] * 7]
        assert begin(0, room, address_of(ticket))
        assert not finish(address_of(ticket), address_of(out))
        sum = ring.begun_at(-int(ticket[0]))
        sum.finish(out)
        places = [place for place, _ in sum.faults]
        # Another dtype or reduction is Python's business, and so is what follows its own sums.
        for vector in (Vector(9, np.dtype(np.float64), "sum"), Vector(9, F32, "max")):
            [room] = ring.ahead(group_of(vector), waiting)
            assert not begin(0, room, address_of(ticket))
        [room] = ring.ahead(group, waiting)
        other = ring.begin(Vector(3, F32, "sum"), waiting)
        other.own[:] = 1
        other.publish()
        assert not begin(0, room, address_of(ticket))
        [room] = ring.ahead(group, waiting)
        assert not begin(0, room, address_of(ticket))
        assert other.finish().tolist() == [2, 2, 2]
        [room] = ring.ahead(group, waiting)
        at(room, 9)[:] = rank
        assert begin(0, room, address_of(ticket)), "heads are filled in again"
        assert finish(address_of(ticket), address_of(out)) and out.tolist() == [1] * 9
        return places

    assert together(2, work) == [[1], [1]]


def test_a_kernel_waits_for_a_late_rank_only_so_long(kernels):
    begin, finish = kernels

    def work(ring, rank):
        ticket, out = np.zeros(1, np.int64), np.zeros(5, np.float32)
        [room] = ring.ahead(group_of(Vector(5, F32, "sum"), looks=3), waiting)
        at(room, 5)[:] = np.inf
        if rank == 0:
            assert begin(0, room, address_of(ticket))
            assert not finish(address_of(ticket), address_of(out))
            late.set()
        else:
            assert late.wait(100)
            assert begin(0, room, address_of(ticket))
            assert finish(address_of(ticket), address_of(out)), (
                "infinity may pass, and who is there"
            )
            return out.tolist()
        return ring.begun_at(-int(ticket[0])).finish(out).tolist()

    late = threading.Event()
    assert together(2, work) == [[np.inf] * 5] * 2


@pytest.mark.parametrize("texts", [("a", "a"), ("a", "b")])
def test_ranks_in_different_collectives_are_seen(kernels, texts, tmp_path):
    begin, finish = kernels
    Board.create(tmp_path / "board", 2)

    def work(ring, rank):
        board = Board(tmp_path / "board", rank, 2)
        board.come_to("barrier")

        vector = Vector(2, F32, "sum")
        board_words, text = board.words_for(1 - rank), texts[rank]
        group = Group([vector], None, board_words, lambda what: description(text), MANY)
        ticket, out = np.zeros(1, np.int64), np.zeros(2, np.float32)
        [room] = ring.ahead(group, waiting)
        assert board.seen == 1
        at(room, 2)[:] = 1
        assert begin(0, room, address_of(ticket))
        assert board.seen == 2
        done = finish(address_of(ticket), address_of(out))
        assert done or board.astray(2) == (1 - rank, texts[1 - rank])
        assert board.come_to("barrier") == 3
        return done

    alike = texts[0] == texts[1]
    assert together(2, work) == [alike, alike]
