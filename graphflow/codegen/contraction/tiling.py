"""Sizes of tiles and blocks, from the vector unit and the caches."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from graphflow.codegen.sizes import greatest, is_fixed, least
from graphflow.codegen.target import Target
from graphflow.records import dataclass

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_DEFAULT_CACHES = (32 * 1024, 512 * 1024)
MOST_COLUMNS = 1024
"""Columns of the right operand packed at a time."""
MOST_ROWS = 48
"""Rows finished at a time: enough to make use of a panel, few enough to stay in cache."""
AVX512_BYTES = 64
LOW = 4
"""Rows below which a tile of two vectors takes no less time."""
FEW_BLOCKS = 3
"""Blocks of steps up to which longer ones gain less than their panels cost in scratch."""
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

    def is_tall(self, itemsize: int) -> bool:
        """Whether it uses a line of a panel for so long that the next one may come from the
        second-level cache meanwhile: 14 cycles with AVX-512."""
        return self.lanes * itemsize == AVX512_BYTES


def heights(height: int) -> tuple[int, ...]:
    """Row counts that have a tile, falling: ``height`` and the powers of two below it."""
    smaller = [1 << bit for bit in range(height.bit_length()) if 1 << bit < height]
    return (height, *reversed(smaller))


def height_text(height: int) -> str:
    """Text of the tallest of :func:`heights` that is at most ``left``."""
    *taller, lowest = heights(height)
    return "".join(f"{h} if left >= {h} else " for h in taller) + str(lowest)


def time_of_rows(rows: int, height: int) -> int:
    """How many rows of tall tiles take the time of ``rows``.

    The sums of a tile of one or two rows wait for each other as long as four's do.  A row that
    is left over has such a tile; so have two, if there is no taller tile to make up with them.
    """
    few = rows % height % LOW
    return rows + few % 2 * (LOW - 1) + (few // 2 * (LOW - 2) if rows < height else 0)


def sum_lanes(target: Target) -> int:
    """How many 32-bit sums of products of small integers a vector has."""
    if target.is_x86 and "avx512bw" in target.enabled:
        return 16
    return 8 if target.is_x86 and "avx2" in target.enabled else 4


def neighbours(target: Target, element: str) -> int:
    """How many neighbours in depth of ``"i8"`` or ``"u8"`` one instruction multiplies and adds to
    a 32-bit sum: four bytes with VNNI or ``sdot``, else two 16-bit numbers."""
    return 4 if element == "i8" and target.has_byte_products else 2


def dots_tile(target: Target, single: bool) -> tuple[int, int]:
    """Rows and columns of scalar products taken at a time; ``single`` says there is one row.

    Each has a sum of its own; a vector a column and one of the row at hand are widened.
    """
    if single:
        return 1, 4
    has_many = target.vector_bytes == 64 or target.is_arm64  # 32 registers
    return (4, 4) if has_many else (4, 2)


PAIR_VECTORS = 2
"""Vectors of sums that a row of a tile has, where columns of small integers are packed."""


HEAD = 4
"""Bytes before a row of bytes: what its sums begin with, where columns are unsigned."""


def pairs_tile(target: Target) -> tuple[int, int]:
    """Rows and columns of a tile whose lanes are columns; its sums fill the registers."""
    height = 12 if target.vector_bytes == 64 or not target.is_x86 else 6
    return height, PAIR_VECTORS * sum_lanes(target)


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


def blocks(tile: Tiling, itemsize: int, depth: int) -> tuple[int, int, int]:
    """Steps, columns and rows that are multiplied at a time.

    A packed panel of the right operand, ``width * steps``, takes three quarters of
    the first-level cache, where all strips of a block of ``rows`` of the left operand
    meet it; the block takes at most half of the second level.  ``depth`` is cut evenly.
    The sums of an element are cut here only, so they depend on the shape and the processor.
    """
    _, second = cache_sizes()
    steps = _even_steps(depth, _most_steps(tile, itemsize, depth))
    rows = least(MOST_ROWS, second // 2 // (steps * itemsize)) // tile.height * tile.height
    return steps, MOST_COLUMNS // tile.width * tile.width, greatest(tile.height, rows)


def _most_steps(tile: Tiling, itemsize: int, depth: int) -> int:
    """Steps of a panel.

    Tall tiles of AVX-512 use a line of it for 14 cycles, so that panels of many steps may come
    from a sixteenth of the second level instead: the sums are then kept in ``c`` less often.
    """
    _, second = cache_sizes()
    near = _near_steps(tile, itemsize)
    tall = tile.is_tall(itemsize) and is_fixed(depth) and depth > FEW_BLOCKS * near
    return max(near, _panel_steps(tile, itemsize, second // 16)) if tall else near


def _near_steps(tile: Tiling, itemsize: int) -> int:
    """Steps of a panel that stays in the first-level cache."""
    first, _ = cache_sizes()
    return _panel_steps(tile, itemsize, first * 3 // 4)


def _panel_steps(tile: Tiling, itemsize: int, size: int) -> int:
    """Steps of a panel of ``size`` bytes."""
    return size // (tile.width * itemsize)


def _even_steps(depth: int, most: int) -> int:
    """``depth`` cut evenly into parts of about ``most`` steps, and no fewer than 64."""
    count = greatest(1, -(-depth // max(64, most)))
    return greatest(1, -(-depth // count))


def axes_blocks(tile: Tiling, itemsize: int, depth: int) -> tuple[int, int, int]:
    """The same for products over several axes, whose sums may be kept in scratch.

    Rows are not packed, and panels are packed again for each block of rows if there is
    more than one block of steps: blocks have many rows, and fewer columns for it.
    """
    columns = MOST_COLUMNS // tile.width * tile.width
    steps = _even_steps(depth, _near_steps(tile, itemsize))
    return (
        steps,
        columns // 4 // tile.width * tile.width,
        MOST_ROWS * 10 // tile.height * tile.height,
    )


def far_blocks(tile: Tiling, itemsize: int, depth: int, bundle: int) -> tuple[int, int, int]:
    """The same where a strip of rows meets all panels before the next one does.

    Panels come from the second level each time, and are as deep as two of them take 9/16 of
    it, so that sums are seldom kept in ``c``, or as many as that.  Steps are cut between
    bundles of ``bundle``.  Rows cost the tables of where they lie.
    """
    most, bundles = far_steps(tile, itemsize), max(1, depth // bundle)
    parts = -(-bundles // max(1, most // bundle))
    steps = -(-bundles // parts) * bundle
    columns = max(tile.width, min(MOST_COLUMNS // 4, 2 * most * tile.width // steps))
    return (
        steps,
        columns // tile.width * tile.width,
        MOST_ROWS * 21 // tile.height * tile.height,
    )


def far_steps(tile: Tiling, itemsize: int) -> int:
    """Most steps of a panel that comes from the second-level cache."""
    return _panel_steps(tile, itemsize, cache_sizes()[1] * 9 // 32)
