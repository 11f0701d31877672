"""The texts of CUDA kernels over whole lines: scans, sorts and searches."""

from __future__ import annotations

from functools import cache

from graphflow.codegen.cuda.writer import HALVES, module, stored_as
from graphflow.codegen.line_kernels import encoding
from graphflow.codegen.schedule import KernelSource, Launch

SORT_BLOCK = 256

_SCAN = """\
def KERNEL({parameters}, lines, count, inner, backward):
    for line in range(cuda.grid(1), lines, cuda.gridsize(1)):
        block = line // inner
        at = block * count * inner + line - block * inner
        step = inner
        if backward != 0:
            at += (count - 1) * inner
            step = -inner
        so_far = {wide}({identity})
{start}\
        for j in range(count):
            x = {wide}({x})
{second}\
{fold}\
            at += step
"""
_FOLD = """\
            so_far = {wide}({combine})
            out[at] = {result}
"""
_PLACE = """\
            if {combine}:
                so_far = x
                place = count - 1 - j if backward != 0 else j
            out[at] = place
"""
_SORT = """\
def KERNEL(a, order, keys, places, lines, count, inner, room, flip, wanted):
    for line in range(cuda.blockIdx.x, lines, cuda.gridDim.x):
        block = line // inner
        start = block * count * inner + line - block * inner
        base = line * room
        for j in range(cuda.threadIdx.x, room, cuda.blockDim.x):
            word = u64({all})
            if j < count:
                word = u64(a[start + j * inner])
{encode}\
                if flip != 0:
                    word = word ^ u64({mask})
            keys[base + j] = word
            places[base + j] = j
        cuda.syncthreads()
        size = 2
        while size <= room:
            stride = size // 2
            while stride > 0:
                for j in range(cuda.threadIdx.x, room, cuda.blockDim.x):
                    k = j ^ stride
                    if k > j:
                        x, y = keys[base + j], keys[base + k]
                        p, q = places[base + j], places[base + k]
                        above = x > y or (x == y and p > q)
                        if above == ((j & size) == 0):
                            keys[base + j], keys[base + k] = y, x
                            places[base + j], places[base + k] = q, p
                cuda.syncthreads()
                stride //= 2
            size *= 2
        start = block * wanted * inner + line - block * inner
        for j in range(cuda.threadIdx.x, wanted, cuda.blockDim.x):
            order[start + j * inner] = places[base + j]
        cuda.syncthreads()
"""
_SEARCH = """\
def KERNEL(a, b, out, total, count, width, step):
    for k in range(cuda.grid(1), total, cuda.gridsize(1)):
        line = k // width * step
        x = {x}
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if {y} {beyond} x:
                high = middle
            else:
                low = middle + 1
        out[k] = low
"""
_INTEGERS = 4


def _read(place: str, short: str) -> str:
    """An element as it is computed with."""
    return f"vm.{short}_to_f32({place})" if short in HALVES else place


@cache
def scan_kernel(
    name: str, element: str, wide: str, combine: str, identity: str, position: bool
) -> KernelSource:
    """Running folds of ``element`` by ``combine``, held as ``wide`` (or their positions)."""
    filled = combine.replace("{0}", "so_far").replace("{1}", "x").replace("{2}", "y")
    two = "{2}" in combine
    result = f"vm.f32_to_{element}(f32(so_far))" if element in HALVES else f"{element}(so_far)"
    if element == "bool":
        result = "so_far != 0"
    fold = (_PLACE if position else _FOLD).format(combine=filled, wide=wide, result=result)
    text = _SCAN.format(
        parameters="a, c, out" if two else "a, out", wide=wide, identity=identity,
        start="        place = 0\n" if position else "", x=_read("a[at]", element),
        second=f"            y = {wide}({_read('c[at]', element)})\n" if two else "", fold=fold,
    )  # fmt: skip
    stored = stored_as(element)
    elements = (stored,) * (1 + two) + ("i64" if position else stored,)
    return module("scan", [name], f"out = {name}(a)", text, Launch(elements, _INTEGERS, 256))


@cache
def sort_kernel(kind: str, size: int, brain: bool = False) -> KernelSource:
    """Stable order of elements of ``size`` bytes that are ``float`` (``brain``: bfloat16),
    ``int`` or ``uint``."""
    encode = encoding(kind, size, brain)
    text = _SORT.format(
        all=hex((1 << 64) - 1), mask=hex((1 << (8 * size)) - 1),
        encode="".join(f"    {line}\n" for line in encode.splitlines()),
    )  # fmt: skip
    launch = Launch((f"u{8 * size}", "i64", "u64", "i64"), _INTEGERS + 2, SORT_BLOCK, True)
    operation = f"{'brain' if brain else kind}{8 * size}"
    return module("sort", [operation], "order = the stable order of a", text, launch)


@cache
def search_kernel(element: str, right: bool) -> KernelSource:
    """How many elements of a sorted line are below (``right``: not above) each value."""
    beyond = ">" if right else ">="
    text = _SEARCH.format(
        x=_read("b[k]", element), y=_read("a[line + middle]", element), beyond=beyond
    )
    stored = stored_as(element)
    launch = Launch((stored, stored, "i64"), _INTEGERS, 256)
    return module("search", [element], "out = where b belongs in a", text, launch)
