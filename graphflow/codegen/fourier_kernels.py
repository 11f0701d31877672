"""The texts of the kernels of Fourier transforms.

Lines are transformed a bundle at a time, in double precision.  Scratch memory holds a bundle as
the real parts of the first elements of its lines, side by side, then the imaginary parts, then the
second elements: whatever a line's length, arithmetic is over vectors of neighbours.  A driver reads
a bundle, has the passes over it done by kernels that it calls by address, one a factor of the
length (those of T. Stockham, which leave results in order), and writes it.  A pass reads one part
of scratch memory and writes another.  A line is one thread's, in a lane of its own: neither the
number of threads nor its neighbours change a bit of it.
"""

from __future__ import annotations

from functools import cache
from textwrap import indent

from graphflow.codegen.butterflies import transform
from graphflow.codegen.names import PLACEHOLDER, kernel_name
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target

LANES = 16
"""Lines of a bundle."""
BUNDLE = 2 * LANES
"""Numbers of the elements of a bundle's lines that are in one place."""
WORDS, BEGINS = 32, 16
"""Words of a thread's scratch: the arguments of a pass, then, from BEGINS on, where lines begin."""
BLOCK = 32
"""Neighbours that are read of a line at once, and put among those of the other lines."""
SCALES = 4
"""Numbers at the beginning of the table: see ``_DRIVER``."""
PASS_WORDS = 4
"""Words that tell the driver about a pass: its kernel, where its table begins, and two numbers."""
STRAIGHT = (2, 3, 4, 5, 7, 8, 11, 13)
"""Factors with a kernel that is written out."""

_DRIVER = '''\
"""out = the Fourier transforms of lines of x, {lanes} lines at a time"""
from graphflow.codegen.contraction.micro_kernels import pack
from graphflow.codegen.prelude import {names}

LANES = {lanes}
BUNDLE = {bundle}
BLOCK = {block}


@kernel
def KERNEL(args, tid, nth):
    x = pointer_{e}(args, 0)
    out = pointer_{e}(args, 1)
    table = pointer_f64(args, 2)
    room = pointer_f64(args, 3) + tid * (2 * args[6])
    words = pointer_i64(args, 4) + tid * {words}
    begins = words + {begins}
    tile = pointer_{e}(args, 5) + tid * (BLOCK * BUNDLE)
    lines, inner, passes = args[7], args[8], args[13]
    read, x_line = args[9], args[10]  # elements of a bundle's lines, numbers from line to line
    written, out_line = args[11], args[12]
    real, imaginary, sign = table[0], table[1], table[2]  # what parts of results, of x are times
    begin, end = share((lines + LANES - 1) // LANES, tid, nth)
    for bundle in range(begin, end):
        first = bundle * LANES
        some = min(LANES, lines - first)
        block = first // inner
        within = first - block * inner
        together = some == LANES and within + LANES <= inner
        at = block * inner * x_line + within * {x_apart}
        if inner == 1:
            for start in range((read + BLOCK - 1) // BLOCK):
                low, high = start * BLOCK, min(start * BLOCK + BLOCK, read)
                pack(
                    {vector}, {x_width}, LANES, tile, x + (at + low * {x_numbers}),
                    x_line, 1, some, (high - low) * {x_numbers},
                )
                for j in range(low, high):
                    to, of = j * BUNDLE, (j - low) * BUNDLE
                    for k in range(LANES):
                        room[to + k] = tile[of + k]
                        room[to + LANES + k] = {packed}
        elif together:
            for j in range(read):
                to = j * BUNDLE
                for k in range(LANES):
{load}\
                at += inner * {x_numbers}
        else:
            for k in range(LANES):
                line = first + (k if k < some else 0)
                block = line // inner
                begins[k] = block * inner * x_line + (line - block * inner) * {x_apart}
            for j in range(read):
                to = j * BUNDLE
                for k in range(LANES):
                    at = begins[k] + j * inner * {x_numbers}
{load_one}\
        source, target = address_of(room), address_of(room + args[6])
        for number in range(passes):
            fact = {first_pass} + {pass_words} * number
            words[0] = source
            words[1] = target
            words[2] = address_of(table + args[fact + 1])
            words[3] = args[fact + 2]
            words[4] = args[fact + 3]
            call_kernel(args[fact], address_of(words), 0, 1)
            source, target = target, source
        made = room + (args[6] if passes % 2 else 0)
        block = first // inner
        at = block * inner * out_line + (first - block * inner) * {out_apart}
        if inner == 1:
            for start in range((written + BLOCK - 1) // BLOCK):
                low, high = start * BLOCK, min(start * BLOCK + BLOCK, written)
                for j in range(low, high):
                    of, to = j * BUNDLE, (j - low) * {out_width}
                    for k in range(LANES):
                        tile[to + k] = real * made[of + k]
{unpacked}\
                count = (high - low) * {out_numbers}
                pack(
                    {vector}, out_line, count, out + (at + low * {out_numbers}), tile,
                    LANES, 1, count, some,
                )
        elif together:
            for j in range(written):
                of = j * BUNDLE
                for k in range(LANES):
{store}\
                at += inner * {out_numbers}
        else:
            for k in range(some):
                line = first + k
                block = line // inner
                begins[k] = block * inner * out_line + (line - block * inner) * {out_apart}
            for j in range(written):
                of = j * BUNDLE
                for k in range(some):
                    at = begins[k] + j * inner * {out_numbers}
{store_one}\
'''
FIRST_PASS = 14
"""The driver's argument with which what it is told of passes begins."""

_FORMS = {  # numbers between neighbours, where the imaginary part is, numbers of an element
    "complex": (2, " + 1", 2),
    "halves": (1, " + inner", 2),
    "real": (1, "", 1),
}


def _load(form: str, at: str) -> str:
    """The statements that read an element, whose numbers begin at ``at``."""
    _, other, _ = _FORMS[form]
    part = f"sign * x[{at}{other}]" if other else "0.0"
    return f"room[to + k] = x[{at}]\nroom[to + LANES + k] = {part}\n"


def _store(form: str, at: str) -> str:
    _, other, _ = _FORMS[form]
    text = f"out[{at}] = real * made[of + k]\n"
    return text + (f"out[{at}{other}] = imaginary * made[of + LANES + k]\n" if other else "")


def _named(prefix: str, parts: list[str], text: str) -> KernelSource:
    name = kernel_name(prefix, parts, text)
    return KernelSource(name, text.replace(PLACEHOLDER, name))


@cache
def driver_kernel(element: str, read: str, written: str) -> KernelSource:
    """The driver for lines of ``element``.

    What is read and written are ``complex`` numbers; ``real`` ones; or ``halves``: pairs of
    neighbours on a real line, each of which counts as a complex number.
    """
    (x_apart, x_part, x_numbers), (out_apart, out_part, out_numbers) = _FORMS[read], _FORMS[written]
    vector = chosen_target().vector_bytes // (4 if element == "f32" else 8)
    second = "tile[to + LANES + k] = imaginary * made[of + LANES + k]\n"
    pointers = sorted({f"pointer_{t}" for t in (element, "f64", "i64")})
    text = _DRIVER.format(
        e=element, lanes=LANES, bundle=BUNDLE, words=WORDS, begins=BEGINS, block=BLOCK,
        names=", ".join(["address_of", "call_kernel", "kernel", *pointers, "share"]),
        vector=vector, first_pass=FIRST_PASS, pass_words=PASS_WORDS,
        x_apart=x_apart, x_numbers=x_numbers, x_width="LANES" if x_part else "BUNDLE",
        packed="sign * tile[of + LANES + k]" if x_part else "0.0",
        out_apart=out_apart, out_numbers=out_numbers, out_width="BUNDLE" if out_part else "LANES",
        unpacked=indent(second, " " * 24) if out_part else "",
        load=indent(_load(read, f"at + {x_apart} * k"), " " * 20),
        load_one=indent(_load(read, "at"), " " * 20),
        store=indent(_store(written, f"at + {out_apart} * k"), " " * 20),
        store_one=indent(_store(written, "at"), " " * 20),
    )  # fmt: skip
    return _named("fft", [element, read, written], text)


_HEAD = """\
from graphflow.codegen.prelude import {names}

LANES = {lanes}
BUNDLE = {bundle}


@kernel
def KERNEL(args, tid, nth):
    x = pointer_f64(args, 0)
    y = pointer_f64(args, 1)
    roots = pointer_f64(args, 2)
"""


def _head(*names: str) -> str:
    """How the kernel of a pass begins, which calls ``names`` beside what all call."""
    called = ", ".join((*names, "kernel", "pointer_f64"))
    return _HEAD.format(names=called, lanes=LANES, bundle=BUNDLE)


_PASS = '''\
"""y = transforms of every {r} elements of x, times roots of unity"""
{head}\
    apart, side = args[3], args[4]
    far, step = apart * side * BUNDLE, side * BUNDLE
    for p in range(apart):
{roots}\
        for q in range(side):
            at = (p * side + q) * BUNDLE
            to = (p * side * {r} + q) * BUNDLE
            for k in range(LANES):
{body}\
'''

_PRIME_PASS = '''\
"""y = transforms of every few elements of x, times roots of unity"""
{head}\
    apart, side = args[3], args[4]
    radix = i64(roots[0])
    own = roots + {scales}  # of the short transform; then those that its results are times
    outer = own + 2 * radix
    far, step = apart * side * BUNDLE, side * BUNDLE
    for p in range(apart):
        for q in range(side):
            at = (p * side + q) * BUNDLE
            for j in range(radix):
                to = (p * side * radix + j * side + q) * BUNDLE
                for k in range(BUNDLE):
                    y[to + k] = x[at + k]
                for i in range(1, radix):
                    turn = i * j % radix
                    c, s = own[2 * turn], own[2 * turn + 1]
                    of = at + i * far
                    for k in range(LANES):
                        a, b = x[of + k], x[of + LANES + k]
                        y[to + k] = y[to + k] + (a * c - b * s)
                        y[to + LANES + k] = y[to + LANES + k] + (a * s + b * c)
                c, s = outer[2 * (p * radix + j)], outer[2 * (p * radix + j) + 1]
                for k in range(LANES):
                    a, b = y[to + k], y[to + LANES + k]
                    y[to + k] = a * c - b * s
                    y[to + LANES + k] = a * s + b * c
'''


@cache
def pass_kernel(radix: int) -> KernelSource:
    """The pass of factor ``radix``: arguments are where it reads, writes, its roots of unity, how
    far apart the elements of a transform are, in elements that lie side by side, and those."""
    if radix not in STRAIGHT:
        text = _PRIME_PASS.format(head=_head("i64"), scales=SCALES)
        return _named("fft_pass", ["prime"], text)
    lines, results = transform(radix)
    roots = [
        f"{name} = roots[{2 * (radix - 1)} * p + {2 * (j - 1) + part}]\n"
        for j in range(1, radix)
        for part, name in enumerate((f"c{j}", f"s{j}"))
    ]
    loads = [
        f"x{j}{name} = x[at{f' + {j} * far' if j else ''}{' + LANES' * part} + k]"
        for j in range(radix)
        for part, name in enumerate("ri")
    ]
    stores = []
    for j, (a, b) in enumerate(results):
        to = f"to{f' + {j} * step' if j else ''}"
        one, other = (a, b) if not j else (f"{a} * c{j} - {b} * s{j}", f"{a} * s{j} + {b} * c{j}")
        stores += [f"y[{to} + k] = {one}", f"y[{to} + LANES + k] = {other}"]
    body = "\n".join([*loads, *lines, *stores, ""])
    text = _PASS.format(
        r=radix, head=_head(),
        roots=indent("".join(roots), " " * 8), body=indent(body, " " * 16),
    )  # fmt: skip
    return _named("fft_pass", [str(radix)], text)


_ENDS = '''\
"""{summary}"""
{head}\
    count = args[3]
    last = count * BUNDLE
{body}\
'''

_FOLD = """\
    for k in range(LANES):
        y[k] = x[k] + x[LANES + k]
        y[LANES + k] = 0.0
        y[last + k] = x[k] - x[LANES + k]
        y[last + LANES + k] = 0.0
    half = 0.5
    for j in range(1, count):
        c, s = roots[2 * j], roots[2 * j + 1]
        at = j * BUNDLE
        of = last - at
        for k in range(LANES):
            a, b, d, e = x[at + k], x[at + LANES + k], x[of + k], x[of + LANES + k]
            odd, other = half * (b + e), half * (d - a)
            y[at + k] = half * (a + d) + (c * odd - s * other)
            y[at + LANES + k] = half * (b - e) + (c * other + s * odd)
"""

_UNFOLD = """\
    for k in range(LANES):
        y[k] = x[k] + x[last + k]
        y[LANES + k] = x[k] - x[last + k]
    for j in range(1, count):
        c, s = roots[2 * j], roots[2 * j + 1]
        at = j * BUNDLE
        of = last - at
        for k in range(LANES):
            a, b, d, e = x[at + k], x[at + LANES + k], x[of + k], x[of + LANES + k]
            odd, other = a - d, b + e
            y[at + k] = (a + d) - (c * other + s * odd)
            y[at + LANES + k] = (b - e) + (c * odd - s * other)
"""

_MIRROR = """\
    for k in range(LANES):
        y[k] = x[k]
        y[LANES + k] = 0.0
    for j in range(1, count // 2 + 1):
        at = j * BUNDLE
        for k in range(LANES):
            y[at + k] = x[at + k]
            y[at + LANES + k] = x[at + LANES + k]
            y[last - at + k] = x[at + k]
            y[last - at + LANES + k] = -x[at + LANES + k]
"""


@cache
def fold_kernel() -> KernelSource:
    """From the transform of a real line's pairs, as complex numbers, to half of its own."""
    return _ends("fold", "y = half the transforms of real lines, x those of their pairs", _FOLD)


@cache
def unfold_kernel() -> KernelSource:
    """From half of Hermitian numbers to those whose transform is that of all, as pairs."""
    return _ends("unfold", "y = what has as its transform the pairs of x's real one", _UNFOLD)


@cache
def mirror_kernel() -> KernelSource:
    """From half of an odd number of Hermitian numbers to all."""
    return _ends("mirror", "y = all Hermitian numbers, of which x has the first half", _MIRROR)


def _ends(name: str, summary: str, body: str) -> KernelSource:
    text = _ENDS.format(head=_head(), summary=summary, body=body)
    return _named("fft", [name], text)
