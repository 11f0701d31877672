"""The texts of the kernels that work line by line: scan, sort and search.

A tensor is ``outer`` blocks of ``count`` rows of ``inner`` elements; the lines
run down the rows.  Extents are arguments, so one element type shares a kernel
for all shapes and axes.  A line is one thread's, so that the number of threads
does not change a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from textwrap import indent

from graphflow.codegen.names import PLACEHOLDER, kernel_name
from graphflow.codegen.schedule import KernelSource

BUNDLE = 128
"""Neighbouring lines that a scan runs down together, so that it reads whole rows."""
SIDE, PIECE = 32, 32
"""Whole lines that a scan runs down together, and elements of each that are put side by side."""
DIGITS = 256
ABREAST = 64
"""Values that are sought together: each step of all of them before the next."""
SHORT = 32
"""Lines up to this long are sorted by insertion."""

_SCAN = '''\
"""out[i, j, k] = {formula} over j"""
{imports}

BUNDLE = {bundle}  # lines that run down together


@kernel
def KERNEL(args, tid, nth):
    a = pointer_{element}(args, 0)
{second}\
    out = pointer_{result}(args, 2)
    held = pointer_{wide}(args, 3) + tid * BUNDLE
{scratch}\
    outer, count, inner, backward = args[5], args[6], args[7], args[8]
    bundles = (inner + BUNDLE - 1) // BUNDLE
    begin, end = share(outer * bundles, tid, nth)
    for unit in range(begin, end):
        block = unit // bundles
        low = (unit - block * bundles) * BUNDLE
        lines = min(BUNDLE, inner - low)
        at = block * count * inner + low
        step = inner
        if backward:
            at += (count - 1) * inner
            step = -inner
        if lines == 1:
            so_far = {identity}
{start}\
            for j in range(count):
                x = {wide}(a[at])
{read}\
{one}\
                at += step
        else:
            for k in range(lines):
                held[k] = {identity}
{starts}\
            for j in range(count):
                for k in range(lines):
                    x = {wide}(a[at + k])
{reads}\
                    so_far = held[k]
{each}\
                at += step
'''

_SCAN_SIDE = '''\
"""out[i, j] = {formula} over j, lines side by side"""
{imports}

SIDE, PIECE = {side}, {piece}  # lines that run down together, a piece of each at a time


@kernel
def KERNEL(args, tid, nth):
    a = pointer_at_{element}(args[0])
{second}\
    out = pointer_at_{result}(args[2])
    held = pointer_{wide}(args, 3) + tid * SIDE
{scratch}\
    made = pointer_at_{result}(args[5]) + tid * (PIECE * SIDE)
    tile = pointer_at_{element}(args[6]) + tid * ({operands} * PIECE * SIDE)
    outer, count, backward, side = args[7], args[8], args[9], args[10]
    begin, end = share((outer + side - 1) // side, tid, nth)
    for unit in range(begin, end):
        lines = min(side, outer - unit * side)
        for k in range(SIDE):
            held[k] = {identity}
{starts}\
        done = 0
        while done < count:
            rows = min(PIECE, count - done)
            at = unit * side * count + (count - done - rows if backward else done)
            pack({lanes}, SIDE, SIDE, tile, a + at, count, 1, lines, rows)
{pack_second}\
            at_row = (rows - 1) * SIDE if backward else 0
            step = -SIDE if backward else SIDE
            for j in range(done, done + rows):
                for k in range(SIDE):
                    x = {wide}(tile[at_row + k])
{reads}\
                    so_far = held[k]
{each}\
                at_row += step
            pack({lanes_out}, count, rows, out + at, made, SIDE, 1, rows, lines)
            done += rows
'''

_FOLD_ONE = """\
                so_far = {combine}
                out[at] = so_far
"""
_FOLD_EACH = """\
                    so_far = {combine}
                    held[k] = so_far
                    out[at + k] = so_far
"""
_SECOND = "    c = pointer_{element}(args, 1)\n"
_READ = "                y = {wide}(c[at])\n"
_READS = "                    y = {wide}(c[at + k])\n"
_PLACE_SCRATCH = "    places = pointer_i64(args, 4) + tid * BUNDLE\n"
_PLACE_START = "            place = 0\n"
_PLACE_STARTS = "                places[k] = 0\n"
# The next element waits for the best so far alone, which is no choice between jumps.
_PLACE_ONE = """\
                so_far = {best}
                if {combine}:  # no worse than the best, itself among them
                    place = count - 1 - j if backward else j
                out[at] = place
"""
_PLACE_EACH = """\
                    if {combine}:
                        held[k] = x
                        places[k] = count - 1 - j if backward else j
                    out[at + k] = places[k]
"""
_SIDE_SECOND = "    c = pointer_at_{element}(args[1])\n"
_SIDE_PACK_SECOND = """\
            pack({lanes}, SIDE, SIDE, tile + PIECE * SIDE, c + at, count, 1, lines, rows)
"""
_SIDE_READS = "                    y = {wide}(tile[PIECE * SIDE + at_row + k])\n"
_SIDE_PLACE_SCRATCH = "    places = pointer_i64(args, 4) + tid * SIDE\n"
_SIDE_PLACE_STARTS = "            places[k] = 0\n"
_SIDE_FOLD_EACH = """\
                    so_far = {combine}
                    held[k] = so_far
                    made[at_row + k] = so_far
"""
_SIDE_PLACE_EACH = """\
                    better = {combine}
                    held[k] = select(better, x, so_far)
                    place = select(better, count - 1 - j if backward else j, places[k])
                    places[k] = place
                    made[at_row + k] = place
"""

_SORT = '''\
"""order = the positions of a, line by line, by ascending key; stable"""
from graphflow.codegen.prelude import {names}

SHORT = {short}  # lines up to this long are sorted by insertion
DIGITS = {digits}
BYTES = {size}  # of an element; each is a digit


@kernel
def KERNEL(args, tid, nth):
    a = pointer_{bits}(args, 0)
    order = pointer_i64(args, 1)
    outer, count, inner, flip = args[5], args[6], args[7], u64(args[8])
    wanted = args[9]  # positions, from the first on
    begin, end = share(outer * inner, tid, nth)
    room = tid if outer * inner >= nth else begin  # scratch for each thread, or for each line
    tally = pointer_i64(args, 2) + room * (DIGITS * BYTES)
    keys = pointer_{key}(args, 3) + room * (2 * count)
    places = pointer_{place}(args, 4) + room * (2 * count)
    for line in range(begin, end):
        block = line // inner
        start = block * count * inner + line - block * inner
        for j in range(count):
            word = u64(a[start + j * inner])
{encode}\
            word = word ^ flip
            if count <= SHORT:
                k = min(j, wanted)  # what comes after those wanted is left behind
                while k > 0 and u64(keys[max(k - 1, 0)]) > word:
                    keys[k] = keys[k - 1]
                    places[k] = places[k - 1]
                    k -= 1
                keys[k] = word
                places[k] = j
            else:
                keys[j] = word
                places[j] = j
        source, target = 0, count
        if count > SHORT:
            for k in range(DIGITS * BYTES):
                tally[k] = 0
            for j in range(count):
                word = u64(keys[j])
                for digit in range(BYTES):
                    k = digit * DIGITS + i64((word >> u64(8 * digit)) & u64(255))
                    tally[k] = tally[k] + 1
            for digit in range(BYTES):
                shift = u64(8 * digit)
                base = digit * DIGITS
                first = base + i64((u64(keys[source]) >> shift) & u64(255))
                if tally[first] < count:  # else all keys have this digit
                    total = 0
                    for k in range(base, base + DIGITS):
                        number = tally[k]
                        tally[k] = total
                        total += number
                    for j in range(source, source + count):
                        word = u64(keys[j])
                        k = base + i64((word >> shift) & u64(255))
                        place = tally[k]
                        tally[k] = place + 1
                        keys[target + place] = word
                        places[target + place] = places[j]
                    source, target = target, source
        start = block * wanted * inner + line - block * inner
        for j in range(wanted):
            order[start + j * inner] = places[source + j]
'''

_FIRST = '''\
"""order = the first few positions of a, line by line, by ascending key; stable"""
from graphflow.codegen.prelude import {names}


@kernel
def KERNEL(args, tid, nth):
    a = pointer_{bits}(args, 0)
    order = pointer_i64(args, 1)
    outer, count, inner, flip = args[5], args[6], args[7], u64(args[8])
    wanted = args[9]
    begin, end = share(outer * inner, tid, nth)
    # The least keys so far and their positions, a heap whose greatest pair is at its root.
    keys = pointer_{key}(args, 3) + tid * args[10]
    places = pointer_{place}(args, 4) + tid * args[10]
    for line in range(begin, end):
        block = line // inner
        start = block * count * inner + line - block * inner
        for j in range(wanted):
            word = u64(a[start + j * inner])
{encode}\
            word = word ^ flip
            k = j
            while k > 0 and u64(keys[max(k - 1, 0) // 2]) <= word:
                above = (k - 1) // 2
                keys[k] = keys[above]
                places[k] = places[above]
                k = above
            keys[k] = word
            places[k] = j
        largest = u64(keys[0])
        for j in range(wanted, count):
            word = u64(a[start + j * inner])
{encode}\
            word = word ^ flip
            if word < largest:
                place = j
                size = wanted
{sift}\
                largest = u64(keys[0])
        start = block * wanted * inner + line - block * inner
        for j in range(wanted):
            last = wanted - 1 - j
            order[start + last * inner] = places[0]
            word = u64(keys[last])
            place = places[last]
            size = last
{sift_out}\
'''

# A pair at the root moves down until none below it is greater.
_SIFT = """\
            k = 0
            below = 1
            while below < size:
                other = min(below + 1, size - 1)
                x, y = u64(keys[below]), u64(keys[other])
                if y > x or (y == x and places[other] > places[below]):
                    below = other
                    x = y
                if x < word or (x == word and places[below] < place):
                    below = size
                else:
                    keys[k] = keys[below]
                    places[k] = places[below]
                    k = below
                    below = 2 * k + 1
            keys[k] = word
            places[k] = place
"""

ENCODE = {
    "uint": "",
    "int": "            word = word ^ u64({sign})\n",
    # The sign of -0 goes, every NaN becomes the largest key; negative numbers are turned.
    # Signs of data are no branches: every second one would be foreseen wrongly.
    "float": """\
            word = select(word == u64({sign}), u64(0), word)
            turned = word ^ select(word >= u64({sign}), u64({all}), u64({sign}))
            word = select((word & u64({magnitude})) > u64({infinity}), u64({all}), turned)
""",
}

_SEARCH = '''\
"""low[i, k] = how many elements of line i of a come before b[i, k]"""
from graphflow.codegen.prelude import kernel, pointer_{element}, pointer_i64, select, share

ABREAST = {abreast}  # values of a line that are sought together


@kernel
def KERNEL(args, tid, nth):
    a = pointer_{element}(args, 0)
    b = pointer_{element}(args, 1)
    out = pointer_i64(args, 2)
    high = pointer_i64(args, 3) + tid * ABREAST
    total, count, width, step = args[4], args[5], args[6], args[7]
    first, end = share(total, tid, nth)
    while first < end:
        row = first // width
        line = row * step
        stop = min(min(first + ABREAST, end), (row + 1) * width)
        for k in range(first, stop):
            out[k] = 0
            high[k - first] = count
        left = count  # the most elements among which any value is still sought
        while left > 0:
            for k in range(first, stop):
                low, up = out[k], high[k - first]
                middle = (low + up) // 2
                beyond = a[line + min(middle, count - 1)] {beyond} b[k]
                out[k] = select(beyond | (low >= up), low, middle + 1)
                high[k - first] = select(beyond, middle, up)
            left //= 2
        first = stop
'''


def encoding(kind: str, size: int, brain: bool = False) -> str:
    """The lines that turn the bits ``word`` of an element into a key that sorts like it."""
    sign = 1 << (8 * size - 1)
    infinity = {2: 0x7C00, 4: 0x7F80_0000, 8: 0x7FF0_0000_0000_0000}.get(size, 0)
    if brain:
        infinity = 0x7F80
    return ENCODE[kind].format(
        sign=hex(sign), magnitude=hex(sign - 1), infinity=hex(infinity), all=hex(2 * sign - 1)
    )


def _named(prefix: str, operation: str, text: str) -> KernelSource:
    name = kernel_name(prefix, [operation], text)
    return KernelSource(name, text.replace(PLACEHOLDER, name))


@cache
def scan_kernel(
    name: str, element: str, wide: str, combine: str, identity: str, best: str
) -> KernelSource:
    """Running folds of ``element`` by ``combine``, held as ``wide``.

    In ``combine``, ``{0}`` is the fold so far, ``{1}`` the element, and ``{2}``, if it
    is there, that of a second operand.  With ``best``, which folds the elements themselves,
    results are the positions of those that ``combine`` says are as good as any before.
    """
    position = bool(best)
    types = {"element": element, "wide": wide}
    filled = _filled(combine)
    second, read, reads = (
        text.format(**types) if "{2}" in combine else "" for text in (_SECOND, _READ, _READS)
    )
    one, each = (_PLACE_ONE, _PLACE_EACH) if position else (_FOLD_ONE, _FOLD_EACH)
    result = "i64" if position else element
    text = _SCAN.format(
        **types, formula=name, imports="{imports}", bundle=BUNDLE, result=result,
        identity=f"{wide}({identity})", second=second, read=read, reads=reads,
        scratch=_PLACE_SCRATCH if position else "",
        start=_PLACE_START if position else "", starts=_PLACE_STARTS if position else "",
        one=one.format(combine=filled, best=_filled(best)), each=each.format(combine=filled),
    )  # fmt: skip
    pointers = [f"pointer_{t}" for t in (element, wide, result)]
    return _named("scan", name, _with_imports(text, pointers, wide))


@cache
def side_scan_kernel(
    name: str, element: str, wide: str, combine: str, identity: str, best: str,
    lanes: tuple[int, int],
) -> KernelSource:  # fmt: skip
    """:func:`scan_kernel` for whole lines of an element type that ``pack`` knows.

    ``lanes`` are those of a vector of elements and of one of results.
    """
    position = bool(best)
    types = {"element": element, "wide": wide, "lanes": lanes[0]}
    second, pack, reads = (
        text.format(**types) if "{2}" in combine else ""
        for text in (_SIDE_SECOND, _SIDE_PACK_SECOND, _SIDE_READS)
    )
    each = _SIDE_PLACE_EACH if position else _SIDE_FOLD_EACH
    result = "i64" if position else element
    text = _SCAN_SIDE.format(
        **types, formula=name, imports="{imports}", side=SIDE, piece=PIECE, result=result,
        lanes_out=lanes[1], operands=1 + bool(second), identity=f"{wide}({identity})",
        second=second, pack_second=pack, reads=reads, each=each.format(combine=_filled(combine)),
        scratch=_SIDE_PLACE_SCRATCH if position else "",
        starts=_SIDE_PLACE_STARTS if position else "",
    )  # fmt: skip
    pointers = [f"pointer_{wide}", *(f"pointer_at_{t}" for t in (element, result))]
    pointers += ["pointer_i64", "select"] * position
    text = _with_imports(text, pointers, wide)
    packing = "from graphflow.codegen.contraction.micro_kernels import pack\n"
    return _named("scan_side", name, text.replace("from graphflow", packing + "from graphflow", 1))


def _filled(combine: str) -> str:
    return combine.replace("{0}", "so_far").replace("{1}", "x").replace("{2}", "y")


def _with_imports(text: str, names: Sequence[str], wide: str) -> str:
    """``text`` of a scan with what it imports."""
    names = ["kernel", *sorted(set(names)), "share", wide, *(["vm"] if "vm." in text else [])]
    imports = f"from graphflow.codegen.prelude import {', '.join(names)}"
    if "inf" in text:
        imports = f"from math import inf\n\n{imports}"
    return text.replace("{imports}", imports)


def _order_kernel(
    prefix: str, template: str, kind: str, size: int, place: str, brain: bool, **facts: object
) -> KernelSource:
    """A kernel that orders elements by keys."""
    bits, key = f"u{8 * size}", "u64" if size == 8 else "u32"
    pointers = sorted({f"pointer_{t}" for t in (bits, key, place, "i64")})
    casts, choices = ["i64"] * (" i64(" in template), ["select"] * (kind == "float")
    text = template.format(
        names=", ".join([*casts, "kernel", *pointers, *choices, "share", "u64"]), size=size,
        bits=bits, key=key, place=place, encode=encoding(kind, size, brain), **facts,
    )  # fmt: skip
    return _named(prefix, f"{kind}{8 * size}", text)


@cache
def sort_kernel(kind: str, size: int, place: str, brain: bool = False) -> KernelSource:
    """Stable order of elements of ``size`` bytes that are ``float`` (``brain``: bfloat16,
    whose exponent is that of float32), ``int`` or ``uint``; positions are kept as ``place``."""
    return _order_kernel("sort", _SORT, kind, size, place, brain, short=SHORT, digits=DIGITS)


@cache
def first_kernel(kind: str, size: int, place: str, brain: bool = False) -> KernelSource:
    """:func:`sort_kernel` where few positions are wanted: all the others are only compared."""
    return _order_kernel(
        "first", _FIRST, kind, size, place, brain, sift=indent(_SIFT, " " * 4), sift_out=_SIFT
    )


@cache
def search_kernel(element: str, right: bool) -> KernelSource:
    """How many elements of a sorted line are below (``right``: not above) each value."""
    text = _SEARCH.format(element=element, beyond=">" if right else ">=", abreast=ABREAST)
    if element == "i64":
        text = text.replace("pointer_i64, pointer_i64", "pointer_i64")
    return _named("search", element, text)
