"""Rounding, selection and division: exact or correctly rounded functions."""

from __future__ import annotations

from graphflow.codegen.llvm_expr import FLOATS, Value, bits, select, two_product


def is_nan(x: Value) -> Value:
    """True for NaN; integers have none."""
    return x.differs(x)


def absolute(x: Value) -> Value:
    """``|x|``; the most negative integer maps to itself."""
    if x.type in FLOATS:
        return x.call("abs")
    return x if x.type.startswith("u") else select(x < 0, -x, x)


def sign(x: Value) -> Value:
    """-1, 0 or 1 in the type of ``x``; NaN stays NaN, zeros give 0."""
    one, zero = x.constant(1), x.constant(0)
    if x.type.startswith("u"):
        return select(x > 0, one, zero)
    result = select(x > 0, one, select(x < 0, x.constant(-1), zero))
    return select(is_nan(x), x, result) if x.type in FLOATS else result


def maximum(x: Value, y: Value) -> Value:
    """The larger operand; NaN if either is NaN; on bool: or."""
    if x.type == "bool":
        return x | y
    return x.call("maximum", y) if x.type in FLOATS else select(x > y, x, y)


def minimum(x: Value, y: Value) -> Value:
    """The smaller operand; NaN if either is NaN; on bool: and."""
    if x.type == "bool":
        return x & y
    return x.call("minimum", y) if x.type in FLOATS else select(x < y, x, y)


def rectified(x: Value) -> Value:
    """``x``, or 0 below 0; NaN and -0.0 stay."""
    return select(x < 0, x.constant(0), x)


def floor(x: Value) -> Value:
    """Largest integral value not above ``x``."""
    return x.call("floor") if x.type in FLOATS else x


def ceil(x: Value) -> Value:
    """Smallest integral value not below ``x``."""
    return x.call("ceil") if x.type in FLOATS else x


def truncate(x: Value) -> Value:
    """``x`` without its fraction."""
    return x.call("trunc") if x.type in FLOATS else x


def round_half_even(x: Value) -> Value:
    """Nearest integral value, halves to even."""
    return x.call("rint") if x.type in FLOATS else x


def square_root(x: Value) -> Value:
    """Correctly rounded square root; NaN below zero."""
    return x.call("sqrt")


def reciprocal_square_root(x: Value) -> Value:
    """``1 / sqrt(x)``: two correctly rounded steps."""
    return x.constant(1.0) / x.call("sqrt")


def reciprocal(x: Value) -> Value:
    """``1 / x``, correctly rounded."""
    return x.constant(1.0) / x


def _safe_divisor(x: Value, y: Value) -> tuple[Value, Value]:
    """``y`` with the two divisors that trap replaced by 1, and whether ``y`` was zero."""
    zero = y.equals(0)
    if y.type.startswith("i"):
        # The most negative integer over -1 traps; the caller negates instead.
        return select(zero | y.equals(-1), y.constant(1), y), zero
    return select(zero, y.constant(1), y), zero


def quotient(x: Value, y: Value) -> Value:
    """Division: true for floats; integers truncate towards zero and give 0 over 0."""
    if x.type in FLOATS:
        return x / y
    divisor, zero = _safe_divisor(x, y)
    result = x / divisor
    if x.type.startswith("i"):
        result = select(y.equals(-1), -x, result)
    return select(zero, x.constant(0), result)


def _integer_remainder(x: Value, y: Value) -> Value:
    divisor, zero = _safe_divisor(x, y)
    rest = x % divisor
    if x.type.startswith("i"):
        wrong_side = rest.differs(0) & ((rest ^ y) < 0)
        rest = select(wrong_side, rest + y, rest)
        rest = select(y.equals(-1), x.constant(0), rest)
    return select(zero, x.constant(0), rest)


_REMAINDER_STEPS = 2


def _multiply_subtract(c: Value, a: Value, b: Value) -> Value:
    """``c - a * b`` rounded once."""
    if c.machine.has_fma:
        return (-a).call("fma", b, c)
    product, error = two_product(a, b)
    return (c - product) - error


def _float_modulus(x: Value, y: Value) -> Value:
    """``fmod(|x|, |y|)`` for positive operands by long division of whole quotients.

    Each step takes away ``trunc(x / y) * y``, exact while the quotient has at
    most 53 bits (f32 works in f64).  Two steps cover quotients up to 2^100;
    beyond that the result is only known to lie in ``[0, |y|)``.
    """
    wide_x, wide_y = x.convert("f64"), y.convert("f64")
    scale = wide_x.constant(1.0)
    if x.type == "f64" and not x.machine.has_fma:  # Dekker's product would overflow
        scale = select(wide_y > 2.0**900, wide_x.constant(2.0**-100), scale)
    original, rest = wide_x, wide_x * scale
    wide_y = wide_y * scale
    for _ in range(_REMAINDER_STEPS):
        whole = (rest / wide_y).call("trunc")
        rest = _multiply_subtract(rest, whole, wide_y)
    # The last quotient may have been rounded up (rest below zero) or down to an integer.
    rest = select(rest < 0, rest + wide_y, rest)
    rest = select(rest >= wide_y, rest - wide_y, rest)
    rest = select((rest >= 0) & (rest < wide_y) | is_nan(rest), rest, rest.constant(0))
    return select(original < wide_y, original, rest / scale).convert(x.type)


def remainder(x: Value, y: Value) -> Value:
    """``x - floor(x / y) * y`` with the sign of ``y`` (Python's ``%``)."""
    if x.type not in FLOATS:
        return _integer_remainder(x, y)
    size = y.call("abs")
    rest = _float_modulus(x.call("abs"), size).call("copysign", x)
    rest = select(rest.differs(0) & ((rest < 0) ^ (y < 0)), rest + y, rest)
    endless = size.equals(float("inf")) & (x.call("abs") < float("inf"))
    at_infinity = select((x < 0) ^ (y < 0) & x.differs(0), y, x)
    result = select(endless, at_infinity, rest)
    bad = y.equals(0) | x.call("abs").equals(float("inf")) | is_nan(x) | is_nan(y)
    return select(bad, x.constant(float("nan")), result)


def floor_divide(x: Value, y: Value) -> Value:
    """``floor(x / y)`` (integers exactly; floats through the exact remainder)."""
    if x.type not in FLOATS:
        result = quotient(x, y)
        if x.type.startswith("i"):
            divisor, zero = _safe_divisor(x, y)
            rest = x % divisor
            below = rest.differs(0) & ((rest ^ y) < 0) & ~zero & y.differs(-1)
            result = select(below, result - 1, result)
        return result
    simple = x / y
    whole = ((x - remainder(x, y)) / y).call("rint")
    whole = select(whole.equals(0), x.constant(0.0).call("copysign", simple), whole)
    opposite = ((x < 0) ^ (y < 0)) & x.differs(0)
    at_infinity = select(opposite, x.constant(-1.0), x.constant(0.0).call("copysign", simple))
    finite = x.call("abs") < float("inf")
    whole = select(y.call("abs").equals(float("inf")) & finite, at_infinity, whole)
    return select(y.equals(0), simple, whole)


def integer_power(x: Value, n: Value) -> Value:
    """``x ** n`` for integers, wrapping; a negative exponent gives the truncated reciprocal."""
    result, square = x.constant(1), x
    width = bits(n.type)
    for bit in range(width - 1 if n.type.startswith("i") else width):
        result = select((n & (1 << bit)).differs(0), result * square, result)
        square = square * square
    if n.type.startswith("u"):
        return result
    odd = (n & 1).differs(0)
    minus_one = select(odd, x.constant(-1), x.constant(1))
    inverse = select(x.equals(-1), minus_one, select(x.equals(1), x, x.constant(0)))
    return select(n < 0, inverse, result)


def modulus(x: Value, y: Value) -> Value:
    """C's ``fmod``: the remainder with the sign of ``x``; integers give 0 at ``y = 0``."""
    if x.type not in FLOATS:
        divisor, zero = _safe_divisor(x, y)
        return select(zero, x.constant(0), x % divisor)
    size = y.call("abs")
    rest = _float_modulus(x.call("abs"), size).call("copysign", x)
    rest = select(size.equals(float("inf")) & (x.call("abs") < float("inf")), x, rest)
    bad = y.equals(0) | x.call("abs").equals(float("inf")) | is_nan(x) | is_nan(y)
    return select(bad, x.constant(float("nan")), rest)


def copysign(x: Value, y: Value) -> Value:
    """``x`` with the sign of ``y``."""
    return x.call("copysign", y)


def hypotenuse(x: Value, y: Value) -> Value:
    """``sqrt(x^2 + y^2)`` without overflow on the way."""
    if x.type == "f32":
        return _root_of_squares(x.convert("f64"), y.convert("f64")).convert("f32")
    one, infinity = x.constant(1.0), x.constant(float("inf"))
    x, y = x.call("abs"), y.call("abs")
    larger, scale = select(x > y, x, y), one
    scale = select(larger > 2.0**500, x.constant(2.0**-600), scale)
    scale = select(larger < 2.0**-500, x.constant(2.0**600), scale)
    value = _root_of_squares(x * scale, y * scale) / scale
    return select(x.equals(infinity) | y.equals(infinity), infinity, value)


def _root_of_squares(x: Value, y: Value) -> Value:
    infinity = x.constant(float("inf"))
    endless = x.call("abs").equals(infinity) | y.call("abs").equals(infinity)
    return select(endless, infinity, (x * x + y * y).call("sqrt"))
