"""Compiled meaning of :mod:`graphflow.codegen.contraction.micro_kernels`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba.core.typing.templates import AbstractTemplate, signature

from graphflow.codegen.bridge import lowers, register_template, types
from graphflow.codegen.contraction import micro_kernels
from graphflow.codegen.contraction.dots import dots_body
from graphflow.codegen.contraction.families import integers_of, run_of, tiles_of
from graphflow.codegen.contraction.instructions import Function
from graphflow.codegen.contraction.kernels import TILED
from graphflow.codegen.contraction.lanes import lanes_at_body
from graphflow.codegen.contraction.linked import call_body
from graphflow.codegen.contraction.packing import (
    pack_body,
    pack_strips_body,
    pack_to_body,
    place_body,
    turn_body,
)
from graphflow.codegen.contraction.pairs import gather_body, widen_body
from graphflow.codegen.contraction.tiles import tile_at_body, tile_body
from graphflow.codegen.contraction.transforms import transform_all_body, transform_body
from graphflow.codegen.contraction.vectors import combine_body, dot_body
from graphflow.codegen.pointers import ArgumentBlock, Pointer

_POINTERS = {"P": TILED, "T": ("i64",), "B": ("i8", "u8"), "S": ("i32",), "H": ("i16",)}


def _register(function: Any, shape: str, lower: Callable[..., None]) -> None:
    """Type and lower ``function``; ``shape`` says L(iteral), P(ointer), T(able) or I(nteger).

    B is a pointer to bytes, H one to 16-bit numbers, S one to 32-bit sums.
    """

    def fits(letter: str, kind: Any) -> bool:
        if letter == "L":
            return isinstance(kind, types.IntegerLiteral)
        if letter in _POINTERS:
            return isinstance(kind, Pointer) and kind.element in _POINTERS[letter]
        return isinstance(kind, types.Integer)

    class Template(AbstractTemplate):  # type: ignore[misc]
        prefer_literal = True

        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != len(shape) or not all(map(fits, shape, args)):
                return None
            taken = [types.int64 if letter == "I" else kind for letter, kind in zip(shape, args)]
            return signature(types.none, *taken)

    def body(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        literals = [k.literal_value for k, letter in zip(sig.args, shape) if letter == "L"]
        values = [v for v, letter in zip(args, shape) if letter != "L"]
        element = next(kind.element for kind in sig.args if isinstance(kind, Pointer))
        lower(builder, element, literals, values)
        return context.get_dummy_value()

    register_template(function, Template)
    lowers(function, *[types.Any] * len(shape))(body)


def _lower_tile(
    make_body: Callable[..., Function],
    builder: Any,
    element: str,
    literals: list[int],
    values: list[Any],
) -> None:
    lanes, vectors, height = literals
    rows, *arguments = values
    key = make_body, element, height, vectors, lanes
    call_body(builder, tiles_of, key, [*arguments, rows])


def _lower_run(builder: Any, element: str, literals: list[int], values: list[Any]) -> None:
    lanes, group, taps, down, along, *choices = literals
    rows, *arguments = values
    key = element, tuple(dict.fromkeys(choices)), (group, taps), (down, along), lanes
    call_body(builder, run_of, key, [*arguments, rows])


def _lower_integers(
    group: int, builder: Any, element: str, literals: list[int], values: list[Any]
) -> None:
    rows, *arguments = values
    call_body(builder, integers_of, (element, group, *literals), [*arguments, rows])


def _lower_alike(
    make_body: Callable[..., Function],
    builder: Any,
    element: str,
    literals: list[int],
    values: list[Any],
) -> None:
    """Call the body that the literals say, with all the rest."""
    call_body(builder, make_body, (element, *literals), values)


def _register_alike(function: Any, shape: str, make_body: Callable[..., Function]) -> None:
    _register(function, shape, partial(_lower_alike, make_body))


_register(micro_kernels.tile, "LLLIPIIPIIPIII", partial(_lower_tile, tile_body))
_register(micro_kernels.tile_at, "LLLIPTTPIIPIII", partial(_lower_tile, tile_at_body))
_register(micro_kernels.lanes_at, "LLLIPTTPIIPIII", partial(_lower_tile, lanes_at_body))
_register(micro_kernels.lanes_run, "LLLLLLLIPITPIIPIII", _lower_run)
_register(micro_kernels.pairs, "LIBHISTI", partial(_lower_integers, 2))
_register(micro_kernels.quads, "LIBBISTI", partial(_lower_integers, 4))
_register_alike(micro_kernels.transform, "LLLIPIIPII", transform_body)
_register_alike(micro_kernels.transform_all, "LLLIIPIIIPIII", transform_all_body)
_register_alike(micro_kernels.dot, "LPPIIPII", dot_body)
_register_alike(micro_kernels.dots, "LLIIBTBITIISTI", dots_body)
_register_alike(micro_kernels.widen, "BTIIH", widen_body)
_register_alike(micro_kernels.gather, "BTIIB", gather_body)
_register_alike(micro_kernels.combine, "LPIPIIPI", combine_body)
_register_alike(micro_kernels.pack, "LIIPPIIII", pack_body)
_register_alike(micro_kernels.turn, "LIPPIII", turn_body)
_register_alike(micro_kernels.pack_to, "LIPTPIII", pack_to_body)
_register_alike(micro_kernels.pack_strips, "LLPPIII", pack_strips_body)


class _PlaceTemplate(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) != 5 or not isinstance(args[0], ArgumentBlock):
            return None
        return signature(types.int64, args[0], *[types.int64] * 4)


register_template(micro_kernels.place, _PlaceTemplate)


@lowers(micro_kernels.place, ArgumentBlock, *[types.Integer] * 4)
def _lower_place(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return call_body(builder, place_body, (), args)
