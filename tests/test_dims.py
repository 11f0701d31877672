"""Dimensions: polynomial arithmetic in canonical form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflow.errors import ShapeError
from graphflow.ir.dims import (
    Dim,
    dim_product,
    dim_sum,
    evaluate_dim,
    greatest,
    least,
    never_negative,
    parse_dim,
    quotient,
    symbol,
)
from graphflow.ir.types import broadcast_shapes

SIZES = {"a": 3, "b": 5, "c_1": 7}
leaves = st.one_of(st.integers(-4, 9), st.sampled_from(sorted(SIZES)).map(symbol))


@st.composite
def dims(draw: st.DrawFn) -> tuple[Dim, int]:
    """A dimension made by random arithmetic, and its value at ``SIZES`` by plain integers."""
    found = draw(leaves)
    value = evaluate_dim(found, SIZES)
    for _ in range(draw(st.integers(0, 4))):
        other = draw(leaves)
        right = evaluate_dim(other, SIZES)
        op = draw(st.sampled_from("+-*r/%<>"))
        if op == "+":
            found, value = found + other, value + right
        elif op == "-":
            found, value = found - other, value - right
        elif op == "*":
            found, value = found * other, value * right
        elif op in "/%":
            if right:
                whole = op == "/"
                found = quotient(found, other) if whole else found - quotient(found, other) * other
                value = value // right if whole else value % right
        elif op == "<":
            found, value = least(found, other), min(value, right)
        elif op == ">":
            found, value = greatest(found, other), max(value, right)
        else:
            found, value = other - found, right - value
    return found, value


@given(dims())
def test_arithmetic_agrees_with_integers(case: tuple[Dim, int]) -> None:
    found, value = case
    assert evaluate_dim(found, SIZES) == value


@given(dims())
def test_spelling_parses_back(case: tuple[Dim, int]) -> None:
    assert parse_dim(str(case[0])) == case[0]


@given(dims(), dims())
def test_equal_polynomials_are_equal_and_hash_alike(x: tuple[Dim, int], y: tuple[Dim, int]) -> None:
    assert x[0] + y[0] == y[0] + x[0]
    assert x[0] * y[0] == y[0] * x[0]
    assert hash((x[0] + y[0]) * x[0]) == hash(x[0] * x[0] + y[0] * x[0])
    assert x[0] - x[0] == 0


def test_cancelling_gives_a_plain_integer() -> None:
    n = symbol("n")
    assert isinstance(n - n + 3, int) and n * 0 == 0 and n + 1 != n
    assert str(2 * n * n - n + 1) == "2*n*n-n+1"


def test_sums_and_products() -> None:
    n = symbol("n")
    assert dim_sum((n, 2, n)) == 2 * n + 2 and dim_sum(()) == 0
    assert dim_product((n, 2, n)) == 2 * n * n and dim_product(()) == 1


@pytest.mark.parametrize("name", ["", "2n", "a b", "n-1", "é", "a.b"])
def test_a_symbol_needs_an_identifier(name: str) -> None:
    with pytest.raises(ShapeError, match="identifier"):
        symbol(name)


def test_evaluating_without_a_size_names_the_symbol() -> None:
    with pytest.raises(ShapeError, match="'batch'"):
        (symbol("batch") * 2).evaluate({"seq": 1})


def test_symbols_broadcast_with_themselves_and_one_only() -> None:
    n, m = symbol("n"), symbol("m")
    assert broadcast_shapes((n, 1), (1, 4), (4,)) == (n, 4)
    assert broadcast_shapes((n,), (1,)) == broadcast_shapes((1,), (n,)) == (n,)
    assert broadcast_shapes((), (2, 0)) == (2, 0)
    for shapes in [((n,), (m,)), ((n,), (4,)), ((4,), (n,)), ((n,), (n * 2,)), ((3,), (4,))]:
        with pytest.raises(ShapeError, match="do not broadcast"):
            broadcast_shapes(*shapes)


@given(dims())
def test_what_is_never_negative_is_not(case: tuple[Dim, int]) -> None:
    assert case[1] >= 0 or not never_negative(case[0])


def test_divisions_are_exact_where_they_can_be() -> None:
    n, m = symbol("n"), symbol("m")
    assert (6 * n * m + 4 * n) // (2 * n) == 3 * m + 2
    assert (8 * n * m - 8 * n) // (2 * n * m - 2 * n) == 4 and 0 // n == 0
    assert (n * n - m * m) // (n + m) == n - m and (n * n) // (n + m) != n
    assert str(n // 2) == "(n//2)" and n // 2 * 2 != n and n // n == 1
    assert n % 1 == 0 and (4 * n) % 2 == 0
    assert str(least(n, 8)) == "min(n,8)" and least(n, n + 1) == n


def test_comparisons_answer_only_what_all_sizes_agree_on() -> None:
    n = symbol("n")
    assert n + 1 > 0 and n >= 0 and not n < 0 and n <= 2 * n
    with pytest.raises(ShapeError, match="whether n > 3 depends on the sizes"):
        assert n > 3
