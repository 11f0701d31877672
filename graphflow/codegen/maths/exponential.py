"""exp, expm1, exp2, sigmoid, tanh.

Arguments are reduced to ``x = n ln 2 + r`` with ``|r| <= ln 2 / 2``; the
polynomials interpolate at Chebyshev nodes (computed with 300 bits; the error
noted is that of the exact polynomial).  ``n`` is rounded by adding
``1.5 * 2^(p-1)``, which leaves it in the low bits of the sum and needs no
rounding instruction; twice the bias of an exponent is added with it.  Results
are scaled by ``2^n`` by one instruction or in two factors, so that subnormal
results are rounded once and overflow happens where it should.
"""

from __future__ import annotations

from graphflow.codegen.llvm_expr import Value, fast_two_sum, mad, polynomial, scaled, select
from graphflow.records import dataclass

LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class _Format:
    """Constants of one floating-point format."""

    integer: str
    mantissa_bits: int
    bias: int
    magic: float  # adding it rounds to an integer that stands in the low bits
    magic_bits: int
    ln2_high: float  # few enough bits that n * ln2_high is exact
    ln2_low: float
    exp_low: float  # below: exp rounds to 0
    exp_high: float  # above: exp overflows
    exp2_low: float
    exp2_high: float
    expm1_low: float  # below: expm1 rounds to -1
    tiny: float  # below in size: expm1(x) == x
    exp_tail: tuple[float, ...]  # (e^r - 1 - r) / r^2
    exp2_tail: tuple[float, ...]  # (2^r - 1) / r
    tanh_tail: tuple[float, ...]  # (tanh(x) / x - 1) / x^2 in x^2, |x| <= 0.625


_FORMATS = {
    "f32": _Format(
        integer="i32", mantissa_bits=23, bias=127,
        magic=12582912.0, magic_bits=0x4B400000,
        ln2_high=0.693115234375, ln2_low=3.1946184945309415e-05,
        exp_low=-104.0, exp_high=89.0, exp2_low=-151.0, exp2_high=129.0,
        expm1_low=-18.0, tiny=2.0**-26,
        # relative error 2^-28
        exp_tail=(
            0.5, 0.16666534543037415, 0.041667237877845764, 0.008367481641471386,
            0.0013863785425201058,
        ),
        # relative error 2^-33
        exp2_tail=(
            0.6931471824645996, 0.24022650718688965, 0.05550410971045494,
            0.009618056006729603, 0.0013333501992747188, 0.00015461561270058155,
            1.5297413483494893e-05,
        ),
        # relative error 2^-30
        tanh_tail=(
            -0.3333333432674408, 0.13333304226398468, -0.053959257900714874,
            0.02176891826093197, -0.008343945257365704, 0.002292744815349579,
        ),
    ),
    "f64": _Format(
        integer="i64", mantissa_bits=52, bias=1023,
        magic=6755399441055744.0, magic_bits=0x4338000000000000,
        ln2_high=0.6931471804855391, ln2_low=7.440617110012397e-11,
        exp_low=-746.0, exp_high=710.0, exp2_low=-1076.0, exp2_high=1025.0,
        expm1_low=-38.0, tiny=2.0**-55,
        # relative error 2^-62
        exp_tail=(
            0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333326084,
            0.0013888888888883711, 0.0001984126987500228, 2.480158732567746e-05,
            2.755725517000089e-06, 2.755727347871858e-07, 2.5105312729622103e-08,
            2.09147553258932e-09,
        ),
        # relative error 2^-69
        exp2_tail=(
            0.6931471805599453, 0.24022650695910072, 0.05550410866482158,
            0.009618129107628484, 0.0013333558146428445, 0.00015403530393362603,
            1.5252733804051059e-05, 1.3215486816155575e-06, 1.017808602125736e-07,
            7.054894317261137e-09, 4.4455302771875135e-10, 2.5733678739192404e-11,
            1.371701341040781e-12,
        ),
        # relative error 2^-59
        tanh_tail=(
            -0.3333333333333333, 0.13333333333333042, -0.05396825396789699,
            0.021869488519008305, -0.008863235103240878, 0.0035921217511549622,
            -0.0014557754120478055, 0.0005896606577757043, -0.0002375906496055562,
            9.257116129556769e-05, -3.12011014257974e-05, 6.485163482793113e-06,
        ),
    ),
}  # fmt: skip


def format_of(x: Value) -> _Format:
    """The constants for the type of ``x``."""
    return _FORMATS[x.type]


def _clamp(x: Value, low: float, high: float) -> Value:
    """``x`` limited to ``[low, high]``; NaN stays NaN."""
    x = select(x < low, x.constant(low), x)
    return select(x > high, x.constant(high), x)


def _round(x: Value, factor: float = 1.0) -> tuple[Value, Value]:
    """``x * factor`` as the nearest integer, and as one plus twice the exponent bias.

    The second has bits of ``magic`` above those that :func:`scale` looks at.
    """
    form = format_of(x)
    magic = form.magic + 2 * form.bias
    shifted = x + magic if factor == 1.0 else mad(x, factor, magic)
    return shifted - magic, shifted.bitcast(form.integer)


def _power_of_two(biased: Value, type: str) -> Value:
    """The float whose exponent field is ``biased``."""
    return (biased << _FORMATS[type].mantissa_bits).bitcast(type)


def scale(x: Value, n: Value, whole: Value) -> Value:
    """``x * 2^n`` for ``n = whole - 2 * bias``, rounded once."""
    if x.type == "f32" and x.machine.has_avx512:
        return scaled(x, n)
    # whole is not negative, so the logical and the arithmetic shift agree;
    # AVX2 has only the logical one for 64 bits.
    unsigned = whole.bitcast(whole.type.replace("i", "u"))
    half = (unsigned >> 1).bitcast(whole.type)
    return x * _power_of_two(half, x.type) * _power_of_two(whole - half, x.type)


def _reduce(x: Value) -> tuple[Value, Value, Value, Value]:
    """``x = n ln 2 + r + rest``: r, rest, and n, as a number and an integer for :func:`scale`."""
    form = format_of(x)
    n, whole = _round(x, LOG2_E)
    high = mad(-n, form.ln2_high, x)
    r = mad(-n, form.ln2_low, high)
    rest = mad(-n, form.ln2_low, high - r)
    return r, rest, n, whole


def exp(x: Value) -> Value:
    """e to the power ``x``."""
    form = format_of(x)
    r, _, n, whole = _reduce(_clamp(x, form.exp_low, form.exp_high))
    return scale(polynomial(r, (1.0, 1.0, *form.exp_tail)), n, whole)


def _careful_exp(x: Value) -> Value:
    """:func:`exp` that also counts what rounding the reduced argument lost (not above 0)."""
    form = format_of(x)
    r, rest, n, whole = _reduce(_clamp(x, form.exp_low, 0.0))
    return scale((r + mad(r * r, polynomial(r, form.exp_tail), rest)) + 1.0, n, whole)


def exp2(x: Value) -> Value:
    """2 to the power ``x``."""
    form = format_of(x)
    x = _clamp(x, form.exp2_low, form.exp2_high)
    n, whole = _round(x)
    r = x - n
    return scale(mad(r, polynomial(r, form.exp2_tail), r.constant(1.0)), n, whole)


def expm1(x: Value) -> Value:
    """``exp(x) - 1``, accurate near zero."""
    form = format_of(x)
    r, rest, _, whole = _reduce(_clamp(x, form.expm1_low, form.exp_high))
    mantissa = r + mad(r * r, polynomial(r, form.exp_tail), rest)
    # 2^(n-1), because 2^n itself may overflow where the result does not.
    half = _power_of_two(whole - (form.bias + 1), x.type)
    result = mad(half, mantissa, half - 0.5) * 2.0
    return select(x.call("abs") < form.tiny, x, result)


def sigmoid(x: Value) -> Value:
    """``1 / (1 + exp(-x))``, without cancellation on either side."""
    # The errors of exp and of the quotient add up, so take back that of the sum: with
    # total + lost == 1 + e exactly, e / (1 + e) is q - q (1 - q) lost, nearly.
    e = _careful_exp(-x.call("abs"))
    total, lost = fast_two_sum(x.constant(1.0), e)
    q = e / total
    q = mad(q * (q - 1.0), lost, q)
    return select(x > 0, 1.0 - q, q)


def tanh(x: Value) -> Value:
    """Hyperbolic tangent: an odd polynomial up to 0.625, ``1 - 2 / (exp(2|x|) + 1)`` above."""
    form = format_of(x)
    size = x.call("abs")
    square = x * x
    near = mad(size * square, polynomial(square, form.tanh_tail), size)
    far = 1.0 - 2.0 / (exp(size + size) + 1.0)
    return select(size > 0.625, far, near).call("copysign", x)
