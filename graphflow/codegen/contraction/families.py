"""One function for tiles of several heights: a kernel calls it, and it goes on to the right one.

So a kernel has one call where it would have one for each, and LLVM begins once for them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from graphflow.codegen.contraction.instructions import I64, VOID, Builder, Function, Value
from graphflow.codegen.contraction.lanes import lanes_run_body
from graphflow.codegen.contraction.pairs import tile_of_integers
from graphflow.codegen.contraction.tiling import heights

_WIDTH = -2
"""Where the columns are among a tile's parameters."""


def tiles_of(
    make: Callable[[str, int, int, int], Function],
    element: str, height: int, vectors: int, lanes: int,
) -> Function:  # fmt: skip
    """The bodies that ``make(element, rows, vectors, lanes)`` writes for all :func:`heights` of
    ``height``, one vector wide where that is enough; takes the rows after a body's parameters."""
    wide, *narrow = (
        {rows: make(element, rows, width, lanes) for rows in heights(height)}
        for width in dict.fromkeys((vectors, 1))
    )
    chosen = _chooser(wide)
    b = Builder(chosen.append_basic_block("entry"))
    *given, rows = chosen.args
    for other in narrow:
        with b.if_then(b.icmp_signed("<=", given[_WIDTH], I64(lanes))):
            _go_on(b, other, rows)
    _go_on(b, wide, rows)
    return chosen


def run_of(
    element: str, heights: tuple[int, ...], taken: tuple[int, int], pitches: tuple[int, int],
    lanes: int,
) -> Function:  # fmt: skip
    """The same of :func:`~graphflow.codegen.contraction.lanes.lanes_run_body`."""
    write = partial(lanes_run_body, element, taken=taken, pitches=pitches, lanes=lanes)
    return _of_rows({rows: write(rows) for rows in heights})


def integers_of(element: str, group: int, height: int) -> Function:
    """The same of :func:`~graphflow.codegen.contraction.pairs.tile_of_integers`."""
    return _of_rows({rows: tile_of_integers(element, group, rows) for rows in heights(height)})


def _chooser(bodies: Mapping[int, Function]) -> Function:
    """The function that will go on to one of ``bodies``: all their rows are in its name."""
    first = next(iter(bodies.values()))
    name = f"{first.name}.of_{'_'.join(map(str, bodies))}"
    return Function(name, VOID, [*first.kinds[1:], I64])


def _of_rows(bodies: Mapping[int, Function]) -> Function:
    chosen = _chooser(bodies)
    _go_on(Builder(chosen.append_basic_block("entry")), bodies, chosen.args[-1])
    return chosen


def _go_on(b: Builder, bodies: Mapping[int, Function], rows: Value) -> None:
    """End with the body for ``rows``; the last for others."""
    *taller, (_, lowest) = bodies.items()
    for height, body in taller:
        with b.if_then(b.icmp_signed("==", rows, I64(height))):
            b.end_with(body)
    b.end_with(lowest)
