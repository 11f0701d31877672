"""Apply gradient rules: the chores that no rule has to think of.

The eager tape engine and the graph pass both ask :func:`operand_cotangent`;
it calls the record's rule and sums broadcast axes away.  What remains to the
drivers is the order of the walk and the addition of cotangents that meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.errors import GraphError
from graphflow.ir.node import Node
from graphflow.ir.op import Application, Builder, Kind, NonDifferentiable, OpDef
from graphflow.ir.ops.complex_parts import each
from graphflow.ir.types import TupleType


def operand_cotangent(
    b: Builder, op: OpDef, application: Application, ct: Any, operand: int
) -> Any | None:
    """The cotangent of operand ``operand`` of ``application``, given that of its result.

    ``None`` when no gradient flows there: the operation or the operand is not
    differentiable, or it does not hold floating-point numbers.  The result has the
    operand's shape and dtype.  ``b`` builds graph nodes or tensors.
    """
    rules = op.vjp
    target = application.inputs[operand]
    if isinstance(rules, NonDifferentiable) or not carries_gradient(target):
        return None
    conjugated = _is_holomorphic(op) and _is_complex(ct)
    if conjugated:
        ct = b.conj(ct)
    if callable(rules):
        result = rules(b, application, ct, operand)
    else:
        if len(rules) != len(application.inputs):
            raise GraphError(
                f"operation {op.name} has {len(rules)} gradient rules, "
                f"but was applied to {len(application.inputs)} operands"
            )
        rule = rules[operand]
        result = None if rule is None else rule(b, application, ct)
    if result is None:
        return None
    if conjugated and _is_complex(result):
        result = b.conj(result)
    shape = target.shape
    return result if result.shape == shape else unbroadcast(b, result, tuple(shape))


_ARITHMETIC = (Kind.ELEMENTWISE, Kind.CONTRACTION, Kind.REDUCTION)


def _is_holomorphic(op: OpDef) -> bool:
    """True where a rule multiplies by a derivative, which complex gradients conjugate.

    What treats both parts alike multiplies by real numbers only.
    """
    return op.kind in _ARITHMETIC and op.parts is not each


def _is_complex(value: Any) -> bool:
    return bool(value.dtype.is_complex)


def carries_gradient(value: Any) -> bool:
    """True for tensors of a floating-point or complex dtype."""
    if isinstance(value, Node) and isinstance(value.type, TupleType):
        return False
    dtype = value.dtype
    return bool(dtype.is_floating_point or dtype.is_complex)


def unbroadcast(b: Builder, ct: Any, shape: Sequence[Any]) -> Any:
    """``ct`` with the given ``shape``: summed over axes that were repeated.

    ``ct`` may also have extents of 1 where ``shape`` has more; those repeat.
    """
    have, want = tuple(ct.shape), tuple(shape)
    if have == want:
        return ct
    missing = len(have) - len(want)
    axes = tuple(
        axis
        for axis, extent in enumerate(have)
        if axis < missing or (extent != 1 and want[axis - missing] == 1)
    )
    if axes:
        kept = tuple(1 if axis in axes else extent for axis, extent in enumerate(have))
        ct = b.reduce_sum(ct, axes=axes)
        have = kept[max(missing, 0) :]
        if tuple(ct.shape) != have:
            ct = b.reshape(ct, shape=have)
    return ct if have == want else b.expand(ct, shape=want)
