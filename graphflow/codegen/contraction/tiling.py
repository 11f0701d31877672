"""Sizes of tiles and blocks, from the vector unit and the caches."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from graphflow.codegen.sizes import greatest, least
from graphflow.codegen.target import Target
from graphflow.records import dataclass

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_DEFAULT_CACHES = (32 * 1024, 512 * 1024)
MOST_COLUMNS = 1024
"""A finished row of tiles stays in cache for the epilogue up to about this width."""
_UNITS = {"K": 1024, "M": 1024 * 1024}


@dataclass(frozen=True)
class Tiling:
    """A register tile: ``height`` rows of ``vectors`` vectors of ``lanes`` elements."""

    lanes: int
    vectors: int
    height: int

    @property
    def width(self) -> int:
        """Columns of a whole tile, and of a packed panel of the right operand."""
        return self.lanes * self.vectors

    @property
    def strip(self) -> int:
        """Row length of a packed strip of the left operand: ``height`` in whole vectors."""
        return -(-self.height // self.lanes) * self.lanes


def heights(height: int) -> tuple[int, ...]:
    """Row counts that have a tile, falling: ``height`` and the powers of two below it."""
    smaller = [1 << bit for bit in range(height.bit_length()) if 1 << bit < height]
    return (height, *reversed(smaller))


def tiling(target: Target, itemsize: int) -> Tiling:
    """The tile that fills the registers of ``target``.

    ``height * vectors`` accumulators, ``vectors`` of the right operand and one
    broadcast value need a register each: 31 of 32 with AVX-512, 15 of 16 with
    AVX.  A tile two vectors wide reads one broadcast for two multiply-adds.
    """
    lanes = target.vector_bytes // itemsize
    if target.vector_bytes == 64:
        return Tiling(lanes, 2, 14)
    if not target.is_x86:
        return Tiling(lanes, 2, 12)
    return Tiling(lanes, 2, 6 if target.has_fma else 4)


@cache
def cache_sizes() -> tuple[int, int]:
    """Bytes of the first-level data cache and of the second-level cache of one core."""
    found = {}
    for index in sorted(_CACHES.glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = int((index / "level").read_text())
            size = (index / "size").read_text().strip()
            if kind != "Instruction":
                found[level] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return found.get(1, _DEFAULT_CACHES[0]), found.get(2, _DEFAULT_CACHES[1])


def blocks(tile: Tiling, itemsize: int, depth: int) -> tuple[int, int]:
    """Steps and columns of the block of the right operand that is multiplied at a time.

    A packed strip of the left operand, ``strip * steps``, fills the first-level
    cache, where all panels of the block meet it; the block, ``steps * columns``,
    takes half of the second-level cache.  ``depth`` is cut evenly.  The sums of
    an element are cut here only, so they depend on the shape and the processor.
    """
    first, second = cache_sizes()
    longest = max(64, first // (tile.strip * itemsize))
    count = greatest(1, -(-depth // longest))
    steps = greatest(1, -(-depth // count))
    columns = second // 2 // (steps * itemsize) // tile.width * tile.width
    return steps, greatest(tile.width, least(columns, MOST_COLUMNS // tile.width * tile.width))
