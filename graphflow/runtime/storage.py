"""Memory with its address at hand, and the pool that outputs come from.

Asking a NumPy array for its address costs a microsecond, more than launching a
small step.  A :class:`Storage` asks once and keeps the answer.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from graphflow.records import dataclass
from graphflow.runtime.available import check_available
from graphflow.runtime.fork import renew_after_fork

Array: TypeAlias = "np.ndarray[Any, Any]"

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""

_PAGE, _LARGE = 4096, 1 << 16
"""Blocks of so many bytes start at a page.

A load waits for earlier stores whose addresses have the same last twelve bits.  Large arrays of
NumPy begin 16 bytes into a page, so results 64 bytes into one made every loop over both wait;
results that begin with the page are behind the loads for good."""
_MEGABYTE = 1 << 20
_KEPT_SMALL, _KEPT_LARGE = 8, 3
_TINY, _KEPT_TINY = 256, 16  # bytes; so many that looking for idle ones is rare
# Reference counts tell who is alive only while one lock guards them all.
_count = sys.getrefcount
COUNTS_ARE_EXACT = getattr(sys, "_is_gil_enabled", lambda: True)()


def address_of(array: Array) -> int:
    """Where the first element of ``array`` lies in memory."""
    return int(array.__array_interface__["data"][0])


def aligned_empty(shape: Sequence[int], dtype: Any) -> Array:
    """An uninitialised row-major array that starts at a multiple of 64 bytes (large: of a page)."""
    return _aligned(tuple(shape), np.dtype(dtype))[1]


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The owner of fresh memory, and the aligned array inside it."""
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    check_available(size, f"a tensor of shape {list(shape)}")
    owner = np.empty(size + _alignment(size), np.uint8)
    return owner, np.ndarray(shape, dtype, owner, _start(owner, size))


def _alignment(size: int) -> int:
    return _PAGE if size >= _LARGE else ALIGNMENT


def _start(owner: Array, size: int) -> int:
    """Where an array of ``size`` bytes begins in its owner."""
    return -address_of(owner) % _alignment(size)


class Storage:
    """One contiguous block of memory; everything a launch needs is a plain attribute.

    ``array`` shows the memory (flat or shaped) and keeps it alive, ``address`` is
    where it starts, ``nbytes`` its size.  ``version`` counts mutations; whoever
    writes to the memory adds one.
    """

    __slots__ = ("address", "array", "nbytes", "version")

    array: Array
    address: int
    nbytes: int
    version: int
    shared: ClassVar[bool] = False
    """Whether others may write to the memory without counting it."""

    def __init__(self, array: Array) -> None:
        if not array.flags.c_contiguous:
            raise ValueError(
                "a Storage is one contiguous block; strided(array) describes any other array"
            )
        self.array = array
        self.address = address_of(array)
        self.nbytes = array.nbytes
        self.version = 0

    @classmethod
    def view(cls, array: Array, address: int) -> Storage:
        """A storage that shows memory through any strides; its first element is at ``address``."""
        self = cls.__new__(cls)
        self.array, self.address, self.nbytes, self.version = array, address, array.nbytes, 0
        return self

    def __repr__(self) -> str:
        return f"Storage({self.array.dtype}, {self.nbytes} bytes at {self.address:#x})"


def empty(shape: Sequence[int], dtype: Any) -> Storage:
    """A fresh 64-byte aligned storage, uninitialised."""
    return Storage(aligned_empty(shape, dtype))


@dataclass(frozen=True, slots=True)
class Strided:
    """An array as (storage, offset, strides), the last two counted in elements."""

    storage: Storage
    offset: int
    strides: tuple[int, ...]


def strided(array: Array) -> Strided:
    """Describe any array without copying it, over the smallest block that holds it.

    The storage keeps the array's memory alive and sees later changes to it.  An
    array whose strides are no multiples of its element size (a field of a
    record) is copied: no element index can reach it.
    """
    size = array.dtype.itemsize
    if array.flags.c_contiguous:
        return Strided(Storage(array), 0, tuple(s // size for s in array.strides))
    if any(stride % size for stride in array.strides):
        return strided(np.ascontiguousarray(array))
    forward = array[tuple(slice(None, None, -1 if s < 0 else 1) for s in array.strides)]
    span = 1 + sum((n - 1) * s // size for n, s in zip(forward.shape, forward.strides))
    flat = np.lib.stride_tricks.as_strided(forward, (span,), (size,))
    storage = Storage(flat)
    offset = (address_of(array) - storage.address) // size
    return Strided(storage, offset, tuple(s // size for s in array.strides))


class _Entry:
    """A pooled buffer: its storage, and the array that owns the memory.

    Every NumPy view of the memory holds a reference to the owner; the array of
    the storage is handed out itself.  So three counts tell whether anybody
    still looks: that of the storage, of its array, and of the owner.
    """

    __slots__ = ("idle", "owner", "storage")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.owner, array = _aligned(shape, dtype)
        storage = self.storage = Storage(array)
        del array
        # As take() counts, local variable included.
        self.idle = _count(storage) + _count(storage.array) + _count(self.owner)
        if not COUNTS_ARE_EXACT:
            self.idle = -1  # never idle: nothing is reused


class OutputPool:
    """Buffers of one type for the outputs of a program, reused when nobody looks.

    :meth:`take` returns a storage whose memory no array, tensor or view refers to
    any more, else a fresh one.  Reused memory is in cache and its pages exist;
    a fresh 64 MB buffer costs twice the computation that fills it.  A view kept
    alive keeps its buffer out of circulation.  The pool remembers only the last
    few buffers, so outputs that pile up elsewhere cost it nothing.

    A pool belongs to one program and is used under that program's lock.
    """

    __slots__ = ("_dtype", "_entries", "_next", "_shape", "_stock", "kept", "made")

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self._shape, self._dtype = tuple(shape), np.dtype(dtype)
        size = self._dtype.itemsize
        for extent in self._shape:
            size *= extent
        self.kept = _KEPT_SMALL if size < _MEGABYTE else _KEPT_LARGE
        if size <= _TINY:
            self.kept = _KEPT_TINY
        self.made = 0
        self._stock: list[Storage] = []
        self._entries: list[_Entry] = []
        self._next = 0

    @property
    def is_large(self) -> bool:
        """Whether its buffers are worth giving back."""
        return self.kept == _KEPT_LARGE

    def release(self) -> None:
        """Forget the buffers; who holds one keeps it."""
        self._entries.clear()
        self._stock.clear()
        self._next = 0

    def take(self) -> Storage:
        """A storage that nobody else uses; its contents are undefined."""
        try:
            return self._stock.pop()
        except IndexError:
            return self._looked_for()

    def _looked_for(self) -> Storage:
        """A buffer that is idle now, else a new one.

        Of tiny buffers all that are idle go into stock: the next calls need not look.
        """
        stock, tiny = self._stock, self.kept == _KEPT_TINY
        for entry in self._entries:
            storage = entry.storage
            if _count(storage) + _count(storage.array) + _count(entry.owner) == entry.idle:
                if not tiny:
                    return storage
                stock.append(storage)
        if stock and len(self._entries) == self.kept:
            return stock.pop()
        return self._new()

    def _new(self) -> Storage:
        entry = _Entry(self._shape, self._dtype)
        self.made += 1
        if len(self._entries) < self.kept:
            self._entries.append(entry)
        else:  # the oldest leaves the pool; its memory goes with its last user
            self._entries[self._next] = entry
            self._next = (self._next + 1) % self.kept
        return entry.storage


class Blocks:
    """Memory for arrays of any shapes, used again when nobody looks at it.

    Results that come and go are made in what the ones before them left, which is in the caches,
    and whose pages exist.  Of idle memory at most ``limit`` bytes are kept, the last to be used.
    Several threads may take.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._owners: OrderedDict[int, Array] = OrderedDict({0: np.empty(0, np.uint8)})
        self._idle = self._references(0)
        self._owners.clear()
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A fresh lock: the parent's may have been held by another thread."""
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Storage:
        """A storage that nobody else uses; its contents are undefined."""
        size = dtype.itemsize * math.prod(shape)
        with self._lock:
            owner = self._idle_for(size)
            if owner is not None:
                return Storage(np.ndarray(shape, dtype, owner, _start(owner, size)))
            owner, array = _aligned(shape, dtype)
            if COUNTS_ARE_EXACT:
                self._owners[id(owner)] = owner
                if len(self._owners) > _MOST_BLOCKS:
                    self._owners.popitem(last=False)
        return Storage(array)

    def _idle_for(self, size: int) -> Array | None:
        """An owner that nobody else holds with room for ``size`` bytes and little more.

        What is idle and too much is forgotten on the way: the last to be used is looked at first.
        """
        idle = 0
        for number in reversed(list(self._owners)):
            if self._references(number) != self._idle:
                continue
            owner = self._owners[number]
            if size + _alignment(size) <= owner.nbytes <= size + size // 4 + _PAGE:
                self._owners.move_to_end(number)
                return owner
            idle += owner.nbytes
            if idle > self._limit:
                del self._owners[number]
        return None

    def _references(self, number: int) -> int:
        return _count(self._owners[number])


_MOST_BLOCKS = 256
