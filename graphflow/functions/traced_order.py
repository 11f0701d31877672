"""Where the elements of traced tensors lie: which reshapes are views while a function is traced."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from graphflow.cell import Chain
from graphflow.codegen.layout import Layout, contiguous, viewed
from graphflow.ir.types import TensorType
from graphflow.mode import mode
from graphflow.traced_sizes import at_sizes

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

_ANY_SIZE = 97
"""The size of a symbolic dimension that has no example: no particular number."""


def traced_layout(input: Tensor, further: Chain = ()) -> Layout | None:
    """The strides of a traced tensor, seen through ``further`` views, in its memory.

    The memory is in row-major order.  None if no strides express the views: a reshape of them
    has memory of its own.
    """
    tracer = mode.tracer
    assert tracer is not None
    sizes = defaultdict(lambda: _ANY_SIZE, tracer.sizes)
    whole = tracer.shadow(input._cell).value.tensor_type
    type: Any = TensorType(whole.dtype, at_sizes(whole.shape, sizes))
    layout = contiguous(0, type)
    for step in (*input._chain, *further):
        attrs = {name: at_sizes(value, sizes) for name, value in step.attrs.items()}
        type = step.op.infer([type], attrs)
        found = viewed(step.op, attrs, layout, type)
        if found is None:
            return None
        layout = found
    return layout
