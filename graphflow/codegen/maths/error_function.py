"""erf: an odd polynomial up to 1; above, a polynomial (f32) or ``1 - exp(-Q(|x| - 1))`` (f64).

``Q(u) = -log(erfc(1 + u))`` is fitted in ``u`` because its terms then do not
cancel near 1, where its error matters most.
"""

from __future__ import annotations

from graphflow.codegen.llvm_expr import Value, mad, polynomial, select
from graphflow.codegen.maths.exponential import exp

_LIMIT = {"f32": 3.925, "f64": 6.0}  # from here erf rounds to 1
# erf(x) / x - 1 in x^2, |x| <= 1
_NEAR = {
    "f32": (
        0.12837916612625122, -0.3761262595653534, 0.1128358542919159, -0.026853812858462334,
        0.005188327748328447, -0.0008010193123482168, 7.853859278839082e-05,
    ),
    "f64": (
        0.1283791670955126, -0.37612638903183754, 0.1128379167095512, -0.02686617064512984,
        0.0052239776254232985, -0.000854832702193483, 0.00012055332902888736,
        -1.4925647567519332e-05, 1.6462045441468418e-06, -1.6364642158167616e-07,
        1.4792401209404813e-08, -1.216456005728345e-09, 8.709045129053106e-11,
        -4.230945824295338e-12,
    ),
}  # fmt: skip
# erf itself, 1 <= |x| <= 3.925, in u, which goes from -1 to 1 as |x| does from 1 to 3.925
_FAR_SINGLE = (
    0.9995032548904419, 0.003837152849882841, -0.013822594657540321, 0.030450716614723206,
    -0.04492435231804848, 0.045183971524238586, -0.028928067535161972, 0.006727356929332018,
    0.008062821812927723, -0.009196975268423557, 0.0023271418176591396, 0.0016473839059472084,
    -0.0008678488084115088,
)  # fmt: skip
_SINGLE_SCALE, _SINGLE_SHIFT = 0.6837607026100159, -1.683760643005371
# -log(erfc(1 + u)), 0 <= u <= 5
_FAR_DOUBLE = (
    1.8496055099332482, 2.638967514234795, 0.8431072563583275, 0.04156109804938037,
    -0.010033825462634972, 0.0019779031986228326, -0.00023732547115646525,
    -2.6267990577569252e-05, 2.713550927299477e-05, -9.567176249351182e-06,
    2.0042076999507634e-06, -8.646472354339328e-08, -1.4152970860425964e-07,
    7.846484305037978e-08, -2.7148106745723257e-08, 7.217267174036438e-09,
    -1.5518802262158816e-09, 2.733640797285654e-10, -3.930970685424521e-11,
    4.550533230853445e-12, -4.139267766144228e-13, 2.847812684810216e-14,
    -1.3920849232129402e-15, 4.304840113498005e-17, -6.325520588718493e-19,
)  # fmt: skip


def erf(x: Value) -> Value:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to x."""
    size = x.call("abs")
    size = select(size > _LIMIT[x.type], x.constant(_LIMIT[x.type]), size)
    square = size * size
    near = mad(size, polynomial(square, _NEAR[x.type]), size)
    far = _far_single(size) if x.type == "f32" else 1.0 - exp(-polynomial(size - 1.0, _FAR_DOUBLE))
    return select(size > 1.0, far, near).call("copysign", x)


def _far_single(size: Value) -> Value:
    """In single precision one polynomial is enough, and half the work of an exponential."""
    value = polynomial(mad(size, _SINGLE_SCALE, _SINGLE_SHIFT), _FAR_SINGLE)
    return select(value > 1.0, size.constant(1.0), value)
