"""Eager cotangents of views that show a part of their operand: written where that part lies.

The rule of a slice pads its cotangent with zeros, and all that come from one operand are added
up, each as large as the operand.  Here they are added into one array of the operand's size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.autograd.history import GradNode
from graphflow.cell import Cell
from graphflow.ir.op import Kind
from graphflow.tensor import Tensor


def shows_a_part(node: GradNode) -> bool:
    """Whether ``node`` is a view of eager memory that leaves out some elements."""
    op = node.op
    if op is None or op.kind is not Kind.VIEW or op.view_inverse is None or not node.inputs:
        return False
    operand, made = node.inputs[0]._array, node.out.array
    return (
        operand.__class__ is made.__class__ is np.ndarray
        and made.size < operand.size
        and operand.dtype.kind == "f"
    )


def add_part(node: GradNode, held: Tensor | None, ct: Tensor, alone: bool) -> Tensor | None:
    """``held`` (None: zeros) with ``ct`` added where ``node`` shows its operand.

    ``alone`` says that ``held`` may be written to.  None, with ``held`` as it was, if what NumPy
    shows is a copy, cannot be written to, or may have elements twice.
    """
    node.check()
    operand, op = node.inputs[0]._eager(), node.op
    assert op is not None
    if held is None:
        held = Tensor._of(Cell(np.zeros(operand.shape, operand.dtype)))
    elif not alone:
        held = Tensor._of(Cell(np.array(held._eager())))
    whole = held._eager()
    part: Any = op.reference(whole, **node.attrs)
    # Views by strides, which may show an element twice, have another base than slices.
    if part.__class__ is not np.ndarray or not part.flags.writeable or part.base is not whole:
        return None
    part += ct._eager()
    return held
