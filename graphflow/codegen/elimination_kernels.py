"""The texts of the kernels that eliminate: triangular factors of matrices, and what follows.

A matrix is one thread's, which copies it to scratch memory in double precision.  What is
subtracted from rows is a copy of the pivot's row, so that the two never overlap and loops over a
row's neighbours become vectors.  A kernel that cannot go on (a pivot is 0, or not positive) says so
in a byte, and leaves the error to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from textwrap import indent

from graphflow.codegen.names import PLACEHOLDER, kernel_name
from graphflow.codegen.schedule import KernelSource

BLOCK = 64
"""Columns that equations with triangular matrices are solved for together."""

_HEAD = '''\
"""{summary}"""
from graphflow.codegen.prelude import {names}


@kernel
def KERNEL(args, tid, nth):
{pointers}\
    count, rows, columns, more = {sizes}
    a_step, b_step = {steps}  # from one matrix to the next
    width = columns + more  # of what lies in scratch memory
    begin, end = share(count, tid, nth)
    for matrix in range(begin, end):
{body}\
'''

_READ = """\
for i in range(rows):
    for j in range(columns):
        work[i * width + j] = a[matrix * a_step + i * columns + j]
"""

_READ_MORE = """\
for i in range(rows):
    for j in range(more):
        work[i * width + columns + j] = b[matrix * b_step + i * more + j]
"""

# Partial pivoting; `turned` says for how many columns another row was taken.
_ELIMINATE = """\
turned = 0
for k in range(min(rows, columns)):
    best, place = work[k * width + k], k
    best = select(best < 0.0, -best, best)
    for i in range(k + 1, rows):
        size = work[i * width + k]
        size = select(size < 0.0, -size, size)
        if size > best:
            best, place = size, i
    if place != k:
        turned += 1
        for j in range(width):
            row[j] = work[k * width + j]
        for j in range(width):
            work[k * width + j] = work[place * width + j]
        for j in range(width):
            work[place * width + j] = row[j]
{swap}\
    pivot = work[k * width + k]
    if pivot == 0.0:
{zero}\
    for j in range(k + 1, width):
        row[j] = work[k * width + j]
    for i in range(k + 1, rows):
        factor = work[i * width + k] / pivot
        work[i * width + k] = factor
        for j in range(k + 1, width):
            work[i * width + j] = work[i * width + j] - factor * row[j]
"""

_LU_BEGIN = """\
for i in range(rows):
    order[matrix * rows + i] = i
"""

_LU_SWAP = """\
        here = order[matrix * rows + k]
        order[matrix * rows + k] = order[matrix * rows + place]
        order[matrix * rows + place] = here
    pivots[matrix * min(rows, columns) + k] = place + 1
"""

_LU_END = """\
for i in range(rows):
    for j in range(columns):
        out[(matrix * rows + i) * columns + j] = work[i * width + j]
"""

_DETERMINANT_END = """\
product = 1.0 - 2.0 * (turned % 2)
for k in range(rows):
    product *= work[k * width + k]
out[matrix] = product
"""

_SUBSTITUTE = """\
for step in range(rows):
    k = rows - 1 - step
    pivot = work[k * width + k]
    for j in range(more):
        row[j] = work[k * width + columns + j] / pivot
        out[(matrix * rows + k) * more + j] = row[j]
    for i in range(k):
        factor = work[i * width + k]
        for j in range(more):
            work[i * width + columns + j] = work[i * width + columns + j] - factor * row[j]
"""

# The upper factor, row by row: columns of the lower triangle of `a` are rows of scratch memory.
_CHOLESKY = """\
for i in range(rows):
    for j in range(i + 1):
        work[j * width + i] = a[matrix * a_step + i * columns + j]
for k in range(rows):
    pivot = work[k * width + k]
    if not pivot > 0.0:
        refused[0] = 1
    root = vm.sqrt(pivot)
    for j in range(k, rows):
        row[j] = work[k * width + j] / root
        work[k * width + j] = row[j]
    for i in range(k + 1, rows):
        factor = row[i]
        for j in range(i, rows):
            work[i * width + j] = work[i * width + j] - factor * row[j]
for i in range(rows):
    for j in range(i + 1):
        out[(matrix * rows + i) * columns + j] = work[j * width + i]
    for j in range(i + 1, columns):
        out[(matrix * rows + i) * columns + j] = 0.0
"""

_TRIANGULAR = '''\
"""out = the x with a x = b, a triangular, some columns at a time"""
from graphflow.codegen.prelude import {names}

BLOCK = {block}


@kernel
def KERNEL(args, tid, nth):
    a = pointer_{e}(args, 0)
    b = pointer_{e}(args, 1)
    out = pointer_{e}(args, 2)
    work = pointer_f64(args, 3) + tid * args[5]
    row = pointer_f64(args, 4) + tid * args[6]
    count, rows, columns, more = args[7], args[8], args[9], args[10]
    a_step, b_step = args[11], args[12]  # from one matrix to the next
    blocks = (more + BLOCK - 1) // BLOCK
    begin, end = share(count * blocks, tid, nth)
    for unit in range(begin, end):
        matrix = unit // blocks
        low = (unit - matrix * blocks) * BLOCK
        some = min(BLOCK, more - low)
        for step in range(rows):
            i = {place}
            of, at = matrix * a_step + i * columns, matrix * b_step + i * more + low
            for j in range(some):
                row[j] = b[at + j]
            for k in range({known}):
                factor = f64(a[of + k])
                for j in range(some):
                    row[j] = row[j] - factor * work[k * BLOCK + j]
{divide}\
            to = (matrix * rows + i) * more + low
            for j in range(some):
                work[i * BLOCK + j] = row[j]
                out[to + j] = row[j]
'''
_DIVIDE = """\
            pivot = f64(a[of + i])
            for j in range(some):
                row[j] = row[j] / pivot
"""

_REFUSE = "        refused[0] = 1\n"
_PASS_OVER = "        pivot = 1.0  # so is all below it\n"

_CLEAR = '''\
"""refused = False"""
from graphflow.codegen.prelude import kernel, pointer_u8


@kernel
def KERNEL(args, tid, nth):
    refused = pointer_u8(args, 0)
    refused[0] = 0
'''


def _named(prefix: str, text: str) -> KernelSource:
    name = kernel_name(prefix, (), text)
    return KernelSource(name, text.replace(PLACEHOLDER, name))


def _kernel(
    name: str, summary: str, places: Sequence[tuple[str, str]], body: str, *more: str
) -> KernelSource:
    """A kernel whose first arguments are the addresses of ``places``, of elements of a type."""
    places = (*places, ("work", "f64"), ("row", "f64"))
    first = len(places)
    rooms = {"work": f" + tid * args[{first}]", "row": f" + tid * args[{first + 1}]"}
    pointers = [
        f"{place} = pointer_{element}(args, {number}){rooms.get(place, '')}\n"
        for number, (place, element) in enumerate(places)
    ]
    words = [f"args[{first + 2 + number}]" for number in range(6)]
    used = {"kernel", "share", *more, *(f"pointer_{element}" for _, element in places)}
    text = _HEAD.format(
        summary=summary, names=", ".join(sorted(used)), pointers=indent("".join(pointers), " " * 4),
        sizes=", ".join(words[:4]), steps=", ".join(words[4:]), body=indent(body, " " * 8),
    )  # fmt: skip
    return _named(name, text)


@cache
def clear_kernel() -> KernelSource:
    """Nothing has been refused yet."""
    return _named("clear", _CLEAR)


@cache
def lu_kernel(element: str) -> KernelSource:
    """Both factors in one matrix, the swaps from 1, the order of rows."""
    places = [("a", element), ("out", element), ("pivots", "i32"), ("order", "i64")]
    eliminate = _ELIMINATE.format(swap=_LU_SWAP, zero=_PASS_OVER)
    body = _READ + _LU_BEGIN + eliminate + _LU_END
    return _kernel(
        "lu", "out = the factors of a, order = its rows in theirs", places, body, "select"
    )


@cache
def determinant_kernel(element: str) -> KernelSource:
    """The determinants of square matrices."""
    body = _READ + _ELIMINATE.format(swap="", zero=_PASS_OVER) + _DETERMINANT_END
    places = [("a", element), ("out", element)]
    return _kernel("determinant", "out = the determinants of a", places, body, "select")


@cache
def solve_kernel(element: str) -> KernelSource:
    """The solutions of equations with square matrices; those that have none are refused."""
    body = _READ + _READ_MORE + _ELIMINATE.format(swap="", zero=_REFUSE) + _SUBSTITUTE
    places = [("a", element), ("b", element), ("out", element), ("refused", "u8")]
    return _kernel("solve", "out = the x with a x = b", places, body, "select")


@cache
def cholesky_kernel(element: str) -> KernelSource:
    """The lower factors of positive-definite matrices; others are refused."""
    places = [("a", element), ("out", element), ("refused", "u8")]
    return _kernel(
        "cholesky", "out = the l with l times its transpose = a", places, _CHOLESKY, "vm"
    )


@cache
def triangular_kernel(element: str, upper: bool, unitriangular: bool) -> KernelSource:
    """The solutions of equations with triangular matrices."""
    names = sorted({"f64", "kernel", f"pointer_{element}", "pointer_f64", "share"})
    text = _TRIANGULAR.format(
        e=element, names=", ".join(names), block=BLOCK,
        place="rows - 1 - step" if upper else "step", known="i + 1, rows" if upper else "i",
        divide="" if unitriangular else _DIVIDE,
    )  # fmt: skip
    return _named("triangular", text)
