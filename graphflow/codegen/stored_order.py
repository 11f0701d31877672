"""In which order of axes the result of a product is stored.

Row-major is the rule.  Attention puts its heads side by side again, a permutation
and a reshape that no strides of a row-major product express: it would be copied.
A product can as well be written where the copy would have put it.
"""

from __future__ import annotations

from graphflow.codegen.layout import Layout, contiguous, row_major, view_of
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType
from graphflow.passes.dataflow import is_alias

Order = tuple[int, ...]


def ordered(buffer: int, type: TensorType, order: Order) -> Layout:
    """The layout at the start of ``buffer`` with axes ``order`` from outermost to innermost;
    row-major for the empty order."""
    if not order:
        return contiguous(buffer, type)
    shape = type.static_shape
    strides = dict(zip(order, row_major([shape[axis] for axis in order]), strict=True))
    return Layout(buffer, type, 0, tuple(strides[axis] for axis in range(len(shape))))


def wanted_order(graph: Graph, node: Node) -> Order:
    """The order that saves the most copies of ``node`` (a result of a product of matrices).

    The rows or the columns must lie together, as the kernels write vectors of them.
    """
    if node in graph.root_set or node.tensor_type.numel == 0:
        return ()
    copies = _copied(graph, node, ())
    best: tuple[int, Order] = (len(copies), ())
    for layout in copies:
        order = _order_of(layout, node.tensor_type)
        if order is not None and order[-1] >= len(order) - 2:
            best = min(best, (len(_copied(graph, node, order)), order))
    return best[1]


def _copied(graph: Graph, node: Node, order: Order) -> list[Layout]:
    """What would be copied because a view of it, as it lies then, has no strides."""
    found: list[Layout] = []
    stack = [(node, ordered(0, node.tensor_type, order))]
    while stack:
        top, layout = stack.pop()
        for user in graph.users[top]:
            if not is_alias(user):
                continue
            view = view_of(user, layout)
            if view is None:
                found.append(layout)
            else:
                stack.append((user, view))
    return found


def _order_of(layout: Layout, type: TensorType) -> Order | None:
    """The axes of a row-major tensor in the order in which ``layout`` shows them, if it only
    rearranges them."""
    extents = {
        stride: axis
        for axis, (stride, extent) in enumerate(zip(row_major(type.static_shape), type.shape))
        if extent != 1
    }
    shown = [
        (stride, extent) for stride, extent in zip(layout.strides, layout.shape) if extent != 1
    ]
    if sorted(stride for stride, _ in shown) != sorted(extents):
        return None
    if any(type.shape[extents[stride]] != extent for stride, extent in shown):
        return None
    single = [axis for axis, extent in enumerate(type.shape) if extent == 1]
    return (*single, *(extents[stride] for stride, _ in shown))
