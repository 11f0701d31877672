"""DLPack's records against NumPy's own: what we write NumPy reads, and the other way round."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from graphflow.runtime import dlpack
from graphflow.runtime.dlpack import CPU_MEMORY, Memory, capsule, take

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u4", "f2", "f4", "f8", "c8", "c16"]


class Owner:
    """What keeps lent memory alive."""


class Lender:
    """An object with ``__dlpack__`` over the memory of an array, in capsules of ours."""

    def __init__(self, array: Any, versioned: bool, readonly: bool = False) -> None:
        self.array, self.versioned, self.owner = array, versioned, Owner()
        self.readonly = readonly

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CPU_MEMORY, 0)

    def __dlpack__(self, **_: Any) -> Any:
        a = self.array
        strides = tuple(step // a.itemsize for step in a.strides)
        where = a.__array_interface__["data"][0]
        memory = Memory(where, (CPU_MEMORY, 0), a.shape, strides, a.dtype.str, self.readonly)
        return capsule(memory, self.owner, a.dtype.kind, self.versioned)


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_reads_what_we_write(dtype: str, versioned: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for view in (array, array[:, ::-1, 1::2], array.T, array[1, 2, 3, ...], array[:0]):
        lender = Lender(view, versioned)
        found = np.from_dlpack(lender)
        assert found.dtype == view.dtype and found.shape == view.shape
        assert found.strides == view.strides or not view.size
        np.testing.assert_array_equal(found, view)
        assert np.shares_memory(found, view) or not view.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_numpy_writes(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)[:, ::-1, 1::2]
    for given in (array.__dlpack__(), array.__dlpack__(max_version=(1, 0))):
        memory, done = take(given)
        assert memory.address == array.__array_interface__["data"][0]
        assert memory.shape == array.shape and memory.device == (CPU_MEMORY, 0)
        assert memory.strides == tuple(step // array.itemsize for step in array.strides)
        assert np.dtype(memory.dtype) == array.dtype and not memory.readonly
        with pytest.raises(BufferError, match="taken before"):
            take(given)
        done()


def test_read_only_memory_is_said() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    memory, done = take(array.__dlpack__(max_version=(1, 0)))
    assert memory.readonly
    done()
    assert not np.from_dlpack(Lender(np.arange(3.0), True, readonly=True)).flags.writeable


@pytest.mark.parametrize("versioned", [False, True])
def test_memory_lives_as_long_as_it_is_lent(versioned: bool) -> None:
    lender = Lender(np.arange(3.0), versioned)
    owner = weakref.ref(lender.owner)
    found: Any = np.from_dlpack(lender)
    array = lender.array
    del lender
    gc.collect()
    assert owner() is not None and found.tolist() == array.tolist()
    del found
    assert owner() is None


def test_a_capsule_that_nobody_takes_is_released() -> None:
    lender = Lender(np.arange(3.0), False)
    owner, given = weakref.ref(lender.owner), lender.__dlpack__()
    del lender
    dlpack._sweep()
    assert owner() is not None, "it may still be taken"
    del given
    dlpack._sweep()
    assert owner() is None


def test_a_refusal_of_the_taker_arrives() -> None:
    class Half(Lender):
        def __dlpack__(self, **_: Any) -> Any:
            where = self.array.__array_interface__["data"][0]
            memory = Memory(where, (CPU_MEMORY, 0), (3,), (1,), "bfloat16")
            return capsule(memory, self.owner, "V", False)

    with pytest.raises((BufferError, RuntimeError)):  # NumPy has no such dtype
        np.from_dlpack(Half(np.arange(3.0), False))
