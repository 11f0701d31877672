"""Storages know their address; strided arrays are described, not copied; pools reuse memory."""

import gc

import numpy as np
import pytest

from graphflow.runtime.storage import (
    ALIGNMENT,
    OutputPool,
    Storage,
    address_of,
    aligned_empty,
    empty,
    strided,
)


def element(storage: Storage, index: int) -> float:
    """Element ``index`` of a storage, read through its address alone."""
    import ctypes

    return ctypes.c_float.from_address(storage.address + 4 * index).value


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3), (1000, 1001)])
def test_fresh_memory_is_aligned(shape: tuple[int, ...]) -> None:
    for dtype in (np.float32, np.int8, np.bool_):
        storage = empty(shape, dtype)
        assert storage.address % ALIGNMENT == 0
        assert storage.array.shape == shape and storage.array.dtype == dtype
        assert storage.nbytes == storage.array.nbytes
        assert storage.version == 0
    assert aligned_empty(shape, "float64").flags.c_contiguous


def test_a_numpy_array_is_used_without_a_copy() -> None:
    array = np.arange(6, dtype=np.float32)
    storage = Storage(array)
    array[2] = 41
    assert element(storage, 2) == 41
    del array
    gc.collect()
    assert element(storage, 2) == 41  # the storage keeps the memory


def test_a_storage_refuses_an_array_with_gaps() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        Storage(np.zeros((4, 4), np.float32)[:, 1])


def test_strided_describes_any_view_of_memory() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        base = rng.standard_normal((5, 6, 7)).astype(np.float32)
        view = base.transpose(rng.permutation(3))
        slices = []
        for extent in view.shape:
            step = int(rng.choice([-3, -2, -1, 1, 2, 3]))
            start = int(rng.integers(0, extent))
            slices.append(slice(start, None, step))
        view = view[tuple(slices)]
        if rng.random() < 0.3:
            view = np.broadcast_to(view, (4, *view.shape))
        found = strided(view)
        assert found.storage.address >= address_of(base)
        assert found.storage.address + found.storage.nbytes <= address_of(base) + base.nbytes
        for index in np.ndindex(view.shape):
            at = found.offset + sum(i * s for i, s in zip(index, found.strides))
            assert element(found.storage, at) == view[index]
            assert found.storage.array.reshape(-1)[at] == view[index]


def test_strided_copies_what_no_element_index_reaches() -> None:
    record = np.zeros(4, np.dtype([("tag", "u1"), ("x", "<f4")]))
    record["x"] = [1, 2, 3, 4]
    found = strided(record["x"])
    assert found.strides == (1,)
    assert [element(found.storage, i) for i in range(4)] == [1, 2, 3, 4]


def test_a_dead_output_is_used_again() -> None:
    pool = OutputPool((100,), np.float32)
    first = pool.take()
    address = first.address
    second = pool.take()
    assert second.address != address
    del first
    assert pool.take().address == address
    for _ in range(1000):
        pool.take()
    assert pool.made == 2


HOLDS = {
    "the storage": lambda s: s,
    "its array": lambda s: s.array,
    "a slice": lambda s: s.array[3:5],
    "a view of a view": lambda s: s.array[3:].reshape(-1, 1)[::2].T,
    "a memoryview": lambda s: memoryview(s.array),
    "an iterator": lambda s: iter(s.array),
    "a view of the dtype": lambda s: s.array.view(np.int32),
    "an object that asked for the buffer": lambda s: np.asarray(memoryview(s.array)[2:4]),
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS.keys())
def test_whatever_shows_an_output_keeps_it(hold) -> None:  # type: ignore[no-untyped-def]
    pool = OutputPool((101,), np.float32)
    storage = pool.take()
    address = storage.address
    storage.array[:] = 7
    held = hold(storage)
    del storage
    for _ in range(20):
        fresh = pool.take()
        assert fresh.address != address
        fresh.array[:] = 0
    del held, fresh
    assert address in {s.address for s in [pool.take() for _ in range(2)]}


def test_outputs_that_pile_up_are_all_different_and_the_pool_forgets_them() -> None:
    pool = OutputPool((3,), np.float64)
    kept = []
    for number in range(500):
        storage = pool.take()
        storage.array[:] = number
        kept.append(storage.array)
        del storage
    assert [int(a[0]) for a in kept] == list(range(500))
    assert len({address_of(a) for a in kept}) == 500
    kept.clear()
    made = pool.made
    for _ in range(100):
        pool.take()
    assert pool.made == made


def test_large_outputs_are_kept_in_small_numbers() -> None:
    small, large = OutputPool((10,), np.float32), OutputPool((1 << 20,), np.float32)
    assert large.kept < small.kept
    kept = [large.take() for _ in range(10)]
    del kept
    assert len(large._entries) == large.kept
