"""Writing at computed positions into state: in place, and only if nothing fails."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import GraphFlowError


def calls(step, *args):
    """The names of the kernels that one call of ``step`` runs."""
    step(*args)
    [program] = step.programs
    return [s.kernel.name for s in program.schedule.steps]


def cache_step(cache, other):
    @gf.compile
    def step(place, rows):
        cache.index_copy_(1, place, rows)
        other.index_copy_(1, place, rows * 2.0)
        return (cache * other).sum(0)

    return step


def buffers():
    gf.manual_seed(4)
    return gf.randn(3, 8, 4), gf.randn(3, 8, 4)


def test_rows_are_written_where_the_state_lies():
    cache, other = buffers()
    step = cache_step(cache, other)
    expected = [cache.numpy().copy(), other.numpy().copy()]
    rng = np.random.default_rng(1)
    for place in ([2], [7], [0]):
        rows = rng.standard_normal((3, 1, 4)).astype(np.float32)
        out = step(gf.tensor(place), gf.tensor(rows))
        expected[0][:, place], expected[1][:, place] = rows, 2 * rows
        np.testing.assert_array_equal(cache.numpy(), expected[0])
        np.testing.assert_array_equal(other.numpy(), expected[1])
        np.testing.assert_allclose(out.numpy(), (expected[0] * expected[1]).sum(0), rtol=1e-6)
    names = calls(step, gf.tensor([3]), gf.zeros(3, 1, 4))
    assert not any(n.startswith("copy") for n in names), names
    assert sum(n.startswith("check") for n in names) == 1, names  # both agree on the places


@pytest.mark.parametrize("place", [-1, 8])
def test_a_place_out_of_range_changes_nothing(place):
    cache, other = buffers()
    step = cache_step(cache, other)
    before = cache.numpy().copy(), other.numpy().copy()
    with pytest.raises(GraphFlowError, match="scatter: an index is out of range for axis 1"):
        step(gf.tensor([place]), gf.ones(3, 1, 4))
    np.testing.assert_array_equal(cache.numpy(), before[0])
    np.testing.assert_array_equal(other.numpy(), before[1])
    step(gf.tensor([5]), gf.ones(3, 1, 4))
    assert cache[:, 5].eq(1).all() and other[:, 5].eq(2).all()


def test_a_later_place_that_fails_stops_an_earlier_write():
    first, second = gf.zeros(4), gf.zeros(2)

    @gf.compile
    def step(place, x):
        first.index_copy_(0, place, x)
        second.index_add_(0, place, first[:1] + x)  # its place does not fit this one

    step(gf.tensor([1]), gf.ones(1))
    with pytest.raises(GraphFlowError, match="scatter_add: an index is out of range"):
        step(gf.tensor([3]), gf.ones(1))
    assert first.tolist() == [0, 1, 0, 0] and second.tolist() == [0, 1]


def test_places_that_a_sort_or_a_search_found_need_no_check():
    state, counts = gf.zeros(6), gf.zeros(6)

    @gf.compile
    def step(place, x):
        state.index_add_(0, place, x)
        best = gf.topk(state, 3)
        counts.index_add_(0, gf.argmax(state).reshape(1), gf.ones(1))
        return best.values, best.indices, gf.sort(state).values

    names = calls(step, gf.tensor([2]), gf.tensor([1.5]))
    assert sum(n.startswith("check") for n in names) == 1, names
    values, indices, ordered = step(gf.tensor([4]), gf.tensor([2.5]))
    assert values.tolist() == [2.5, 1.5, 0] and indices.tolist() == [4, 2, 0]
    assert state.tolist() == [0, 0, 1.5, 0, 2.5, 0] and counts.tolist() == [0, 0, 1, 0, 1, 0]
    assert ordered.tolist() == sorted(state.tolist())
    [program] = step.programs
    written = [s.writes & set(program.schedule.committed) for s in program.schedule.steps]
    assert not any(w for w, n in zip(written, names, strict=True) if n.startswith("copy"))


def test_a_longer_line_than_the_one_that_is_read_may_be_out_of_range():
    state = gf.zeros(2)
    read = gf.compile(lambda x: state.index_select(0, gf.argsort(x)[:2]))
    assert read(gf.tensor([1.0, 2.0, 3.0])).tolist() == [0, 0]
    with pytest.raises(GraphFlowError, match="out of range"):
        read(gf.tensor([1.0, 2.0, 0.0]))


def test_a_place_computed_from_the_new_value_waits_for_nothing_it_depends_on():
    state, other = gf.zeros(4), gf.zeros(3)

    @gf.compile
    def step(place):
        state.index_add_(0, place, gf.ones(1))
        other.index_add_(0, state.sum().long().reshape(1), gf.ones(1))

    step(gf.tensor([1]))
    step(gf.tensor([1]))
    with pytest.raises(GraphFlowError, match="out of range"):
        step(gf.tensor([0]))
    assert state.tolist() == [0, 2, 0, 0] and other.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["amax", "amin", "prod", "mean"])
def test_other_ways_to_fold_and_an_old_value_that_is_still_read(name):
    state = gf.tensor([1.0, -2.0, 3.0, 0.5])
    eager = state.clone()
    index, x = gf.tensor([3, 0, 3]), gf.tensor([2.0, -1.0, 4.0])

    def change(t):
        old = t * 1.0
        t.index_reduce_(0, index, x, name)
        t.index_copy_(0, gf.tensor([1]), gf.tensor([7.0]))
        return old + t

    step = gf.compile(lambda: change(state))
    for _ in range(2):
        np.testing.assert_allclose(step().numpy(), change(eager).numpy(), rtol=1e-6)
        np.testing.assert_allclose(state.numpy(), eager.numpy(), rtol=1e-6)


def test_a_carry_of_a_scan_is_written_at_places():
    def fill(start, places, rows):
        def body(carry, x):
            place, row = x
            return carry.index_copy(0, place.reshape(1), row.reshape(1, 3)), carry.sum()

        return gf.scan(body, start, (places, rows))

    gf.manual_seed(2)
    args = gf.zeros(5, 3), gf.tensor([4, 0, 2, 4]), gf.randn(4, 3)
    got, want = gf.compile(fill)(*args), fill(*args)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6)
    with pytest.raises(GraphFlowError, match="out of range"):
        gf.compile(fill)(args[0], gf.tensor([4, 0, 5, 4]), args[2])


def test_scatters_one_after_the_other_write_where_the_state_lies():
    cache, other = buffers()

    @gf.compile
    def step(place, rows):
        sums = []
        for _ in range(3):
            cache.index_copy_(1, place, rows)
            other.index_add_(1, place, rows)
            sums.append((cache * other).sum())  # between the writes
            place, rows = place + 1, rows * 2.0
        return gf.stack(sums)

    expected = [x.numpy().astype(np.float64) for x in (cache, other)]
    rows = np.random.default_rng(3).standard_normal((3, 1, 4)).astype(np.float32)
    for first in (4, 1):
        sums = step(gf.tensor([first]), gf.tensor(rows))
        for i in range(3):
            expected[0][:, [first + i]] = rows * 2**i
            expected[1][:, [first + i]] += rows * 2**i
            np.testing.assert_allclose(sums[i], (expected[0] * expected[1]).sum(), rtol=1e-5)
        np.testing.assert_allclose(cache.numpy(), expected[0], rtol=1e-6)
        np.testing.assert_allclose(other.numpy(), expected[1], rtol=1e-6)
    names = calls(step, gf.tensor([0]), gf.zeros(3, 1, 4))
    assert not any(n.startswith("copy") for n in names), names
    before = cache.numpy().copy(), other.numpy().copy()
    with pytest.raises(GraphFlowError, match="out of range"):
        step(gf.tensor([6]), gf.ones(3, 1, 4))  # the third place
    np.testing.assert_array_equal(cache.numpy(), before[0])
    np.testing.assert_array_equal(other.numpy(), before[1])


def test_what_else_becomes_of_a_state_between_two_writes_stays():
    first, second, kept = gf.zeros(4), gf.zeros(4), gf.zeros(4)

    @gf.compile
    def step(place, x):
        first.index_copy_(0, place, x)
        kept.copy_(first)
        between = first.clone()
        first.index_copy_(0, place + 1, x)
        second.copy_(first)
        first.index_copy_(0, place + 2, x)
        return between

    for x in (1.0, 2.0):
        between = step(gf.tensor([0]), gf.tensor([x]))
        was = [x, x / 2, x / 2, 0] if x > 1 else [x, 0, 0, 0]
        assert between.tolist() == kept.tolist() == was
        assert second.tolist() == [x, x, x / 2 if x > 1 else 0, 0]
        assert first.tolist() == [x, x, x, 0]
