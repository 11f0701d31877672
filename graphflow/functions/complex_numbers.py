"""Complex tensors: made from parts, taken apart, conjugated.

``real`` and ``imag`` are views where there is something to share.  A conjugate is always
computed (there is no lazy one), so ``resolve_conj`` has nothing to do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphflow.checks import need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply, apply_view, full
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.functions.elementwise import abs, atan2, cos, div, eq, mul, ne, sign, sin, sub, where
from graphflow.functions.shaping import broadcast_to, select, stack, transpose
from graphflow.ir import types as T
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.promotion import cast, get_default_dtype

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "adjoint", "angle", "complex", "conj", "conj_physical", "imag", "is_complex", "is_conj",
    "is_neg", "isreal", "polar", "real", "resolve_conj", "resolve_neg", "sgn", "view_as_complex",
    "view_as_real",
]  # fmt: skip
METHODS = """
adjoint angle conj conj_physical is_complex is_conj is_neg isreal resolve_conj resolve_neg sgn
""".split()
IN_PLACE = """
conj_physical sgn
""".split()
PROPERTIES = ("real", "imag", "mH")


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """``real + i imag`` of two tensors of one dtype, float32 or float64; they broadcast."""
    need_tensor("complex", real, "real")
    if real.dtype is not need_tensor("complex", imag, "imag").dtype:
        raise DTypeError(
            f"complex: real is {real.dtype.name}, imag {imag.dtype.name}; they must be the same"
        )
    if real.dtype not in (T.float32, T.float64):
        raise DTypeError(f"complex: takes float32 or float64 tensors, not {real.dtype.name}")
    return joined(real, imag)


def joined(real: Tensor, imag: Tensor) -> Tensor:
    """The complex tensor of two real ones of one dtype."""
    shape: Any = broadcast_shapes(tuple(real.shape), tuple(imag.shape))
    parts = [broadcast_to(real, shape), broadcast_to(imag, shape)]
    return apply("view_as_complex", stack(parts, -1))


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """``abs * (cos(angle) + i sin(angle))``."""
    need_tensor("polar", abs, "abs")
    if abs.dtype is not need_tensor("polar", angle, "angle").dtype or abs.dtype not in (
        T.float32,
        T.float64,
    ):
        raise DTypeError(
            "polar: takes two float32 or float64 tensors of one dtype, not "
            f"{abs.dtype.name} and {angle.dtype.name}"
        )
    return joined(mul(abs, cos(angle)), mul(abs, sin(angle)))


def view_as_real(input: Tensor) -> Tensor:
    """The (real, imaginary) pairs in a new last dimension: a view."""
    _need_complex("view_as_real", input)
    return apply_view("view_as_real", input)


def view_as_complex(input: Tensor) -> Tensor:
    """Pairs in the last dimension as complex numbers: a view, so pairs must lie side by side."""
    need_tensor("view_as_complex", input)
    if input.dtype.complex is None or input.dtype.is_complex:
        raise DTypeError(
            f"view_as_complex: takes float32 or float64 tensors, not {input.dtype.name}"
        )
    if not input.ndim or input.shape[-1] != 2:
        raise GraphFlowError(
            f"view_as_complex: the last dimension must be of size 2; the shape is "
            f"{list(input.shape)}"
        )
    if mode.tracer is None:
        array = input._eager()
        if array.size and (
            array.strides[-1] != array.dtype.itemsize
            or any(s % (2 * array.dtype.itemsize) for s in array.strides[:-1])
        ):
            raise GraphFlowError(
                "view_as_complex: the pairs do not lie side by side; call contiguous() first"
            )
    return apply_view("view_as_complex", input)


def _need_complex(name: str, input: Tensor) -> None:
    if not need_tensor(name, input).dtype.is_complex:
        raise GraphFlowError(f"{name} takes complex tensors, not {input.dtype.name}")


def real(input: Tensor) -> Tensor:
    """The real part: a view; a real tensor is its own."""
    if not need_tensor("real", input).dtype.is_complex:
        return input
    return select(view_as_real(input), -1, 0)


def imag(input: Tensor) -> Tensor:
    """The imaginary part: a view.  Real tensors have none."""
    if not need_tensor("imag", input).dtype.is_complex:
        raise GraphFlowError(f"imag takes complex tensors, not {input.dtype.name}")
    return select(view_as_real(input), -1, 1)


def is_complex(input: Tensor) -> bool:
    """True for tensors of a complex dtype."""
    return need_tensor("is_complex", input).dtype.is_complex


def conj(input: Tensor) -> Tensor:
    """The complex conjugate; a real tensor is its own."""
    return apply("conj", input) if is_complex(input) else input


def conj_physical(input: Tensor) -> Tensor:
    """The complex conjugate, in memory of its own."""
    return apply("conj", input) if is_complex(input) else input.clone()


def resolve_conj(input: Tensor) -> Tensor:
    """``input``: conjugates are never lazy here."""
    return need_tensor("resolve_conj", input)


def resolve_neg(input: Tensor) -> Tensor:
    """``input``: negations are never lazy here."""
    return need_tensor("resolve_neg", input)


def is_conj(input: Tensor) -> bool:
    """False: conjugates are never lazy here."""
    return False


def is_neg(input: Tensor) -> bool:
    """False: negations are never lazy here."""
    return False


@beside_operands
def isreal(input: Tensor) -> Tensor:
    """True where the imaginary part is 0."""
    if is_complex(input):
        return eq(imag(input), 0)
    return full(tuple(input.shape), True, T.bool_)


def angle(input: Tensor) -> Tensor:
    """The argument in radians; of real numbers 0, or pi below 0 (NaN stays NaN)."""
    if is_complex(input):
        return atan2(imag(input), real(input))
    source = input if input.dtype.is_floating_point else cast(input, get_default_dtype())
    direction = sign(source)
    turned = mul(mul(direction, sub(direction, 1)), 0.5 * math.pi)
    return where(ne(source, source), math.nan, turned)


def sgn(input: Tensor) -> Tensor:
    """``z / |z|``, 0 at 0; for real tensors the sign."""
    if not is_complex(input):
        return sign(input)
    size = abs(input)
    zero = eq(size, 0)
    return where(zero, 0.0, div(input, where(zero, 1.0, size)))


def adjoint(input: Tensor) -> Tensor:
    """The conjugate transpose of the last two dimensions."""
    if need_tensor("adjoint", input).ndim < 2:
        raise GraphFlowError(
            f"adjoint (mH) takes matrices or batches of them, not shape {list(input.shape)}"
        )
    return conj(transpose(input, -2, -1))


def property_real(self: Tensor) -> Tensor:
    """The real part."""
    return real(self)


def property_imag(self: Tensor) -> Tensor:
    """The imaginary part."""
    return imag(self)


def property_mH(self: Tensor) -> Tensor:
    """The conjugate transpose of every matrix."""
    return adjoint(self)
