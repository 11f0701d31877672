"""What contraction kernels call beyond the prelude, in plain Python.

A kernel imports these names; compiled, they become register tiles in vector
code (:mod:`graphflow.codegen.contraction.lowering`).  ``lanes``, ``vectors`` and
``height`` are literals that shape the code; addresses are pointers; strides count elements.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphflow.codegen.contraction.tiling import HEAD, pairs_tile
from graphflow.codegen.plain import Arguments, Pointer
from graphflow.codegen.target import chosen_target
from graphflow.ir.formulas.winograd import FORMS, both_sides, matrix

_NUMPY: dict[str, Any] = {
    "f32": np.float32, "f64": np.float64,
    "i32": np.int32, "u32": np.uint32, "i64": np.int64, "u64": np.uint64,
}  # fmt: skip


def _view(pointer: Pointer, shape: tuple[int, int], strides: tuple[int, int]) -> Any:
    """A NumPy matrix over the memory at ``pointer``; strides in elements."""
    dtype = np.dtype(_NUMPY[pointer.element])
    if 0 in shape:
        return np.zeros(shape, dtype)
    reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    below = -sum(min(0, far) for far in reach)
    items = 1 + below + sum(max(0, far) for far in reach)
    start = pointer.address - below * dtype.itemsize
    buffer = (ctypes.c_uint8 * (items * dtype.itemsize)).from_address(start)
    flat = np.frombuffer(buffer, dtype)[below:]
    return as_strided(flat, shape, tuple(stride * dtype.itemsize for stride in strides))


def tile(
    lanes: int, vectors: int, height: int, rows: int,
    a: Pointer, a_row: int, a_step: int, b: Pointer, b_step: int, depth: int,
    c: Pointer, c_row: int, width: int, add: int,
) -> None:  # fmt: skip
    """``c[:rows, :width] = a[rows, depth] @ b[depth, width]``, plus what was there if ``add``.

    Element ``[i, k]`` of ``a`` is at ``i * a_row + k * a_step``, ``[k, j]`` of
    ``b`` at ``k * b_step + j``.  ``rows`` is a height that
    :func:`graphflow.codegen.contraction.tiling.heights` lists for ``height``.
    Rows of ``b`` are readable up to a multiple of ``lanes``.
    """
    left = _view(a, (rows, depth), (a_row, a_step))
    product = left @ _view(b, (depth, width), (b_step, 1))
    target = _view(c, (rows, width), (c_row, 1))
    target[...] = target + product if add else product


def tile_at(
    lanes: int, vectors: int, height: int, rows: int,
    a: Pointer, spots: Pointer, steps: Pointer, b: Pointer, b_step: int, depth: int,
    c: Pointer, c_row: int, width: int, add: int,
) -> None:  # fmt: skip
    """:func:`tile` where element ``[i, k]`` of ``a`` is at ``spots[i] + steps[k]``."""
    left = np.array([[a[spots[i] + steps[k]] for k in range(depth)] for i in range(rows)])
    product = left.reshape(rows, depth) @ _view(b, (depth, width), (b_step, 1))
    target = _view(c, (rows, width), (c_row, 1))
    target[...] = target + product if add else product


def lanes_at(
    lanes: int, vectors: int, height: int, rows: int,
    a: Pointer, spots: Pointer, steps: Pointer, b: Pointer, b_step: int, depth: int,
    c: Pointer, c_row: int, width: int, add: int,
) -> None:  # fmt: skip
    """``c[i, j] = sum over k of a[i, k, j] * b[k, j]``, plus what was there if ``add``.

    Element ``[i, k, j]`` of ``a`` is at ``spots[i] + steps[k] + j``; the rest as for :func:`tile`.
    """
    right = _view(b, (depth, width), (b_step, 1))
    for i in range(rows):
        target = _view(c + i * c_row, (1, width), (0, 1))[0]
        total = np.zeros(width, target.dtype)
        for k in range(depth):
            total += _view(a + (spots[i] + steps[k]), (1, width), (0, 1))[0] * right[k]
        target[...] = target + total if add else total


def lanes_run(
    lanes: int, group: int, taps: int, down: int, along: int, most: int, fewest: int, rows: int,
    a: Pointer, pitch: int, steps: Pointer, b: Pointer, b_step: int, runs: int,
    c: Pointer, c_row: int, width: int, add: int,
) -> None:  # fmt: skip
    """:func:`lanes_at` for ``most`` or ``fewest`` rows, ``runs`` of ``taps``, columns of a vector.

    Columns are groups of ``group``, of which each reads all elements of ``a``, one a step: step
    ``k`` of row ``i`` meets, at ``p + j - j % group + k % group``, column ``j``, where ``p`` is
    ``steps[k - k % (taps * group)] + (i * down + k // group % taps * along) * pitch``.
    """
    right = _view(b, (runs * taps * group, width), (b_step, 1))
    columns = np.arange(width)
    for i in range(rows):
        target = _view(c + i * c_row, (1, width), (0, 1))[0]
        total = np.zeros(width, target.dtype)
        for k in range(runs * taps * group):
            place = (i * down + k // group % taps * along) * pitch
            at = a + (steps[k - k % (taps * group)] + place)
            met = _view(at, (1, width), (0, 1))[0][columns - columns % group + k % group]
            total += met * right[k]
        target[...] = target + total if add else total


def dot(
    lanes: int, a: Pointer, b: Pointer, b_row: int, depth: int, c: Pointer, c_step: int, count: int
) -> None:
    """``c[j * c_step] = sum of a[k] * b[j * b_row + k]`` over ``k < depth``, ``j < count``."""
    rows = _view(b, (count, depth), (b_row, 1))
    _view(c, (count, 1), (c_step, 1))[:, 0] = rows @ _view(a, (1, depth), (depth, 1))[0]


def dots(
    height: int, width: int, rows: int, columns: int,
    a: Pointer, spots: Pointer, b: Pointer, b_column: int,
    steps: Pointer, pieces: int, run: int,
    c: Pointer, targets: Pointer, c_column: int,
) -> None:  # fmt: skip
    """Scalar products of up to ``height`` rows and ``width`` columns of 8-bit numbers.

    ``c[targets[i] + j * c_column] = sum over k of a[spots[i] + k] * b[j * b_column + k]``,
    where ``k`` takes ``run`` neighbours from each of ``pieces`` beginnings: ``steps`` has two
    of them, in ``a`` and in ``b``, for each piece.
    """
    for i in range(rows):
        for j in range(columns):
            total = 0
            for piece in range(pieces):
                left, right = a + (spots[i] + steps[2 * piece]), b + j * b_column
                right = right + steps[2 * piece + 1]
                total += sum(int(left[k]) * int(right[k]) for k in range(run))
            c[targets[i] + j * c_column] = total


def widen(a: Pointer, steps: Pointer, pieces: int, run: int, target: Pointer) -> None:
    """``run`` 8-bit numbers from each of ``a + steps[p]``, one after the other, as 16-bit ones.

    Where ``run`` is odd a zero follows each, so that every piece has whole pairs.
    """
    even = (run + 1) // 2 * 2
    for piece in range(pieces):
        for k in range(even):
            target[piece * even + k] = a[steps[piece] + k] if k < run else 0


def pairs(
    height: int, rows: int, panel: Pointer, a: Pointer, pitch: int,
    c: Pointer, targets: Pointer, width: int,
) -> None:  # fmt: skip
    """``c[targets[i] + j] = sum over k < pitch of a[i * pitch + k] * b[k, j]``, ``j < width``.

    The panel has ``b[k, j]`` at ``(k // 2 * across + j) * 2 + k % 2``, where ``across`` is the
    width of a whole tile.  ``rows`` is one of the heights listed for ``height``.
    """
    across = pairs_tile(chosen_target())[1]
    for i in range(rows):
        for j in range(width):
            c[targets[i] + j] = sum(
                int(a[i * pitch + k]) * int(panel[(k // 2 * across + j) * 2 + k % 2])
                for k in range(pitch)
            )


def gather(a: Pointer, steps: Pointer, pieces: int, run: int, target: Pointer) -> None:
    """``run`` bytes from each of ``a + steps[p]``, after ``-128`` times their sum in 32 bits.

    Zeros follow each piece, so that it has whole groups of four.
    """
    pitch, total = (run + 3) // 4 * 4, 0
    for piece in range(pieces):
        for k in range(pitch):
            number = int(a[steps[piece] + k]) if k < run else 0
            target[HEAD + piece * pitch + k] = number
            total += number
    for place, byte in enumerate(np.frombuffer(np.int32(-128 * total).tobytes(), np.int8)):
        target[place] = int(byte)


def quads(
    height: int, rows: int, panel: Pointer, a: Pointer, pitch: int,
    c: Pointer, targets: Pointer, width: int,
) -> None:  # fmt: skip
    """:func:`pairs` for rows that :func:`gather` made, and a panel whose highest bits are flipped.

    The panel has ``b[k, j] ^ -128`` at ``(k // 4 * across + j) * 4 + k % 4``.
    """
    across = pairs_tile(chosen_target())[1]
    for i in range(rows):
        start = i * (pitch + HEAD)
        head = np.array([a[start + byte] for byte in range(HEAD)], np.int8).view(np.int32)[0]
        for j in range(width):
            c[targets[i] + j] = int(head) + sum(
                int(a[start + HEAD + k]) * (int(panel[(k // 4 * across + j) * 4 + k % 4]) & 255)
                for k in range(pitch)
            )


def combine(
    lanes: int, a: Pointer, a_step: int, b: Pointer, b_step: int, depth: int, c: Pointer, width: int
) -> None:
    """``c[j] = sum of a[k * a_step] * b[k * b_step + j]`` over ``k < depth``, ``j < width``."""
    factors = _view(a, (1, depth), (0, a_step))
    _view(c, (1, width), (0, 1))[...] = factors @ _view(b, (depth, width), (b_step, 1))


def pack(
    lanes: int, width: int, room: int, target: Pointer, source: Pointer,
    row: int, step: int, count: int, depth: int,
) -> None:  # fmt: skip
    """``target[k * width + r] = source[r * row + k * step]`` for ``r < count``, ``k < depth``.

    Places of ``target`` with ``r`` from ``count`` to ``room`` may be overwritten.
    """
    view = _view(source, (count, depth), (row, step))
    _view(target, (depth, count), (width, 1))[...] = view.T


def turn(
    lanes: int, width: int, target: Pointer, source: Pointer, row: int, count: int, depth: int
) -> None:
    """``target[k * width + r] = source[r * row + k]`` for ``r < count``, ``k < depth``.

    Places up to the next multiple of ``lanes`` after ``count`` may be overwritten, and ``lanes``
    steps up to the last one read and overwritten where ``depth`` is less.
    """
    pack(lanes, width, count, target, source, row, 1, count, depth)


def pack_to(
    lanes: int, room: int, target: Pointer, places: Pointer, source: Pointer,
    row: int, count: int, depth: int,
) -> None:  # fmt: skip
    """``target[places[k] + r] = source[r * row + k]`` for ``r < count``, ``k < depth``.

    Places of ``target`` with ``r`` from ``count`` to ``room`` may be overwritten.
    """
    view = _view(source, (count, depth), (row, 1))
    for k in range(depth):
        _view(target + places[k], (1, count), (0, 1))[0] = view[:, k]


def pack_strips(
    lanes: int, height: int, target: Pointer, source: Pointer, step: int, count: int, depth: int
) -> None:
    """Rows that are neighbours, to strips of ``height`` rows: like :func:`pack` for each strip.

    Row ``r`` of step ``k``, at ``source[k * step + r]``, goes to place ``r % height`` of row
    ``r // height * depth + k`` of ``target``, whose rows are ``height`` in whole vectors long.
    """
    strip = -(-height // lanes) * lanes
    for begin in range(0, count, height):
        rows = min(height, count - begin)
        block = target + begin // height * depth * strip
        pack(lanes, strip, strip, block, source + begin, 1, step, rows, depth)


def transform(
    lanes: int, form: int, size: int, count: int,
    source: Pointer, row: int, column: int, target: Pointer, to_row: int, to_column: int,
) -> None:  # fmt: skip
    """``target[r, s, c] = sum over i, j of M[r, i] * M[s, j] * source[i, j, c]``.

    ``M`` is the matrix of form number ``form`` for tiles of ``size``
    (:mod:`graphflow.ir.formulas.winograd`); the ``count`` channels ``c`` lie together.
    """
    m = matrix(FORMS[form], size)
    made, taken = len(m), len(m[0])
    lines = [[_view(source + (i * row + j * column), (1, count), (0, 1))[0]
              for j in range(taken)] for i in range(taken)]  # fmt: skip
    found = both_sides(FORMS[form], size, np.array(lines).reshape(taken, taken, count))
    for r in range(made):
        for s in range(made):
            _view(target + (r * to_row + s * to_column), (1, count), (0, 1))[0] = found[r, s]


def transform_all(
    lanes: int, form: int, size: int, tiles: int, count: int,
    source: Pointer, row: int, column: int, away: int,
    target: Pointer, to_row: int, to_column: int, to_away: int,
) -> None:  # fmt: skip
    """:func:`transform` for ``tiles`` tiles; the next one is ``away``, and goes ``to_away``."""
    for n in range(tiles):
        start, goal = source + n * away, target + n * to_away
        transform(lanes, form, size, count, start, row, column, goal, to_row, to_column)


def place(args: Arguments, at: int, axes: int, index: int, which: int) -> int:
    """Where element ``index``, counted over several axes, lies: a sum of strides.

    The words of an axis begin at ``at``, the outermost first, four an axis: the
    extent, then a stride for each ``which`` from 1 to 3.
    """
    offset = 0
    for axis in reversed(range(axes)):
        word = at + 4 * axis
        index, digit = divmod(index, args[word])
        offset += digit * args[word + which]
    return offset
