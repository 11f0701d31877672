"""LLVM bodies that apply a small constant matrix to both sides of tiles (Winograd's transforms)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from graphflow.codegen.contraction.bodies import Body
from graphflow.codegen.contraction.instructions import I64, Function
from graphflow.ir.formulas.winograd import FORMS, Matrix, matrix


def transform_body(element: str, lanes: int, form: int, size: int) -> Function:
    """``target[r, s, c] = sum of M[r, i] * M[s, j] * source[i, j, c]``, ``c`` contiguous."""
    body = Body(f"transform.{_name(element, lanes, form, size)}", element, lanes, "ipiipii")
    count, source, row, column, target, to_row, to_column = body.function.args
    _write(
        body, matrix(FORMS[form], size), count, (source, row, column), (target, to_row, to_column)
    )
    body.builder.ret_void()
    return body.function


def transform_all_body(element: str, lanes: int, form: int, size: int) -> Function:
    """The same for several tiles."""
    name = f"transform_all.{_name(element, lanes, form, size)}"
    body = Body(name, element, lanes, "iipiiipiii")
    tiles, count, source, row, column, away, target, to_row, to_column, to_away = body.function.args
    b = body.builder
    with body.loop(tiles) as n:
        at, to = body.at(source, b.mul(n, away)), body.at(target, b.mul(n, to_away))
        _write(body, matrix(FORMS[form], size), count, (at, row, column), (to, to_row, to_column))
    b.ret_void()
    return body.function


def _name(element: str, lanes: int, form: int, size: int) -> str:
    return f"{FORMS[form]}.{size}.{element}.{lanes}"


def _write(
    body: Body, m: Matrix, count: Any, left: tuple[Any, Any, Any], right: tuple[Any, Any, Any]
) -> None:
    """One tile; ``left`` and ``right`` are where it begins, and strides of rows and columns."""
    (source, row, column), (target, to_row, to_column) = left, right
    taken, made = range(len(m[0])), range(len(m))
    spots = [[_place(body, source, (row, i), (column, j)) for j in taken] for i in taken]
    goals = [[_place(body, target, (to_row, r), (to_column, s)) for s in made] for r in made]

    def step(position: Any, mask: Any) -> None:
        columns = [
            _applied(body, m, [body.read(line[j], position, mask) for line in spots]) for j in taken
        ]
        for r, line in enumerate(goals):
            values = _applied(body, m, [column[r] for column in columns])
            for value, goal in zip(values, line, strict=True):
                body.write(value, goal, position, mask)

    body.for_vectors(count, step)


def _place(body: Body, base: Any, *terms: tuple[Any, int]) -> Any:
    return body.at(base, *(body.builder.mul(stride, I64(index)) for stride, index in terms))


def _applied(body: Body, m: Matrix, values: Sequence[Any]) -> list[Any]:
    """``m`` times a column of vectors.

    Two rows that differ in signs only share the sums of terms with equal and with opposite
    signs; where two columns do, the rows share sum and difference of two values.
    """
    b, found = body.builder, {}
    if not _mirrored(m):
        values, m = _with_sums(body, m, values)
    for first, second in _mirrored(m):
        halves: tuple[list[tuple[Fraction, Any]], ...] = ([], [])
        for p, q, value in zip(m[first], m[second], values, strict=True):
            halves[p != q].append((p, value))
        even, odd = (_combined(body, half) for half in halves)
        found[first], found[second] = b.fadd(even, odd), b.fsub(even, odd)
    rest = {r: list(zip(row, values, strict=True)) for r, row in enumerate(m) if r not in found}
    found |= {r: _combined(body, terms) for r, terms in rest.items()}
    return [found[r] for r in range(len(m))]


def _mirrored(m: Matrix) -> list[tuple[int, int]]:
    """Neighbouring rows whose elements are equal but for signs, some with and some without."""
    return [
        (r, r + 1)
        for r, (one, two) in enumerate(pairwise(m))
        if one != two
        and all(abs(p) == abs(q) for p, q in zip(one, two, strict=True))
        and any(p == q != 0 for p, q in zip(one, two, strict=True))
    ]


def _with_sums(body: Body, m: Matrix, values: Sequence[Any]) -> tuple[list[Any], Matrix]:
    """Mirrored columns replaced by sum and difference: each row has one of the two."""
    columns = list(zip(*m, strict=True))
    values, b = list(values), body.builder
    for first, second in _mirrored(tuple(columns)):
        one, two = values[first], values[second]
        values[first], values[second] = b.fadd(one, two), b.fsub(one, two)
        pairs = list(zip(columns[first], columns[second], strict=True))
        columns[first] = tuple(p if p == q else Fraction(0) for p, q in pairs)
        columns[second] = tuple(p if p != q else Fraction(0) for p, q in pairs)
    return values, tuple(zip(*columns, strict=True))


def _combined(body: Body, terms: Sequence[tuple[Fraction, Any]]) -> Any:
    """The sum of factors times values; those with a factor of one come first and only add."""
    b, total = body.builder, None
    for factor, value in sorted(terms, key=lambda term: (abs(term[0]) != 1, -term[0])):
        if factor == 0:
            continue
        if total is None:
            total = value if factor == 1 else b.fmul(value, _constant(body, factor))
        elif abs(factor) == 1:
            total = (b.fadd if factor == 1 else b.fsub)(total, value)
        else:
            total = body.multiply_add(value, _constant(body, factor), total)
    return body.zero if total is None else total


def _constant(body: Body, factor: Fraction) -> Any:
    return body.vector.splat(float(factor))
