"""A product by the library, and filters of convolutions in the order of their images' axes.

Parameters lie as ``[K, C, *T]``, images with their channels last.  The library has its fast
kernels for arrays of one order, so filters are copied into the image's before a convolution, and
gradients of filters are made in it and copied after, if what follows does not read them there.
Filters that are turned (the gradient of an image) or picked (that of a strided convolution) lie
evenly then, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from graphflow.codegen.cuda.convolution import FORWARD, Convolution
from graphflow.codegen.cuda.product import plan_of, product_call
from graphflow.codegen.layout import Layout, row_major
from graphflow.codegen.library import Plan, Seen
from graphflow.codegen.lower import lower_group
from graphflow.codegen.schedule import Call
from graphflow.codegen.task import LowerContext
from graphflow.codegen.units import copy_body
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.products import labels_of
from graphflow.ir.types import TensorType


def by_library(
    front: Graph,
    product: Node,
    inputs: Sequence[Layout],
    call: Call,
    place: Callable[[], Layout],
    whole: bool,
    context: LowerContext,
) -> tuple[list[Call], Layout]:
    """The calls of ``front``, which the library takes as ``call`` says, and where they leave its
    result: at ``place``, surely if that is the ``whole`` of what was asked for."""
    plan, seen = plan_of(call, copied=True), call.library
    assert isinstance(plan, Plan) and isinstance(seen, Seen)
    if not isinstance(plan.asked, Convolution):
        tile = place()
        return [product_call(front, product, inputs, [tile], context)], tile
    first = (plan.places[0], plan.starts[0][0]) == (seen.a.argument, seen.a.offset)
    image, other = (0, 1) if first else (1, 0)
    at = [front.inputs.index(node) for node in product.inputs]
    labels = labels_of(product)
    steps = dict(zip(labels[image], inputs[at[image]].strides))
    shared = set(labels[0]).intersection(labels[1], labels[2])

    def order(own: Sequence[int]) -> list[int]:
        """The axes of a filter, by their labels: groups, what the image has not, then as there."""
        ranks = [(k not in shared) + (k in steps and k not in shared) for k in own]
        return sorted(range(len(own)), key=lambda n: (ranks[n], -steps.get(own[n], 0)))

    if plan.asked.form == FORWARD:
        given, before = list(inputs), list[Call]()
        filter, wanted = given[at[other]], order(labels[other])
        if not _lies(filter, wanted):
            given[at[other]] = in_order(filter.type, wanted, context)
            before = lower_group(copy_body(filter.type), [filter], [given[at[other]]], context)
        tile = place()
        return [*before, product_call(front, product, given, [tile], context)], tile
    wanted = order(labels[2])
    made = place() if whole else in_order(front.outputs[0].tensor_type, wanted, context)
    if _lies(made, wanted):
        return [product_call(front, product, inputs, [made], context)], made
    inside = in_order(made.type, wanted, context)
    after = lower_group(copy_body(made.type), [inside], [made], context)
    return [product_call(front, product, inputs, [inside], context), *after], made


def strides_in(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Of an array without gaps whose axes lie in ``order``."""
    steps = row_major([shape[axis] for axis in order])
    return tuple(steps[order.index(axis)] for axis in range(len(shape)))


def _lies(layout: Layout, order: Sequence[int]) -> bool:
    """Whether an array lies without gaps in ``order``."""
    wanted = strides_in(layout.shape, order)
    return all(a == b for a, b, n in zip(layout.strides, wanted, layout.shape) if n != 1)


def in_order(type: TensorType, order: Sequence[int], context: LowerContext) -> Layout:
    """A temporary whose axes lie in ``order``."""
    lying = context.temporary(TensorType(type.dtype, tuple(type.shape[axis] for axis in order)))
    strides = strides_in(type.static_shape, order)
    return Layout(lying.buffer, type, lying.offset, strides)


def order_of_copy(
    product: Node,
    position: int,
    copy: Layout,
    shown: Layout,
    at: Mapping[Node, Layout],
    result: Layout,
) -> list[int]:
    """In which order the axes of a row-major ``copy`` should lie, ``shown`` as operand
    ``position`` of ``product``: that of a convolution's response, channels where its are.

    The response is the ``result``, or the other operand if taps are more than positions.
    """
    labels = labels_of(product)
    own, other, out = labels[position], labels[1 - position], labels[2]
    axes: dict[int, list[int]] = {}  # of the copy: the labels that run along it
    for label, stride, extent in zip(own, shown.strides, shown.shape):
        along = [k for k, step in enumerate(copy.strides) if copy.shape[k] > 1 and step <= stride]
        if extent > 1 and along:
            axes.setdefault(max(along, key=lambda k: copy.strides[k]), []).append(label)
    sizes = dict(zip(own, shown.shape))
    windows = [label for run in axes.values() if len(run) > 1 for label in run]
    places = prod(sizes[label] for label in windows if label in out)
    taps = prod(sizes[label] for label in windows if label not in out)
    layout = result if places >= taps else at[product.inputs[1 - position]]
    steps = dict(zip(out if places >= taps else other, layout.strides))
    channels = max((steps[k] for k in steps if k not in own), default=0)

    def step(axis: int) -> int:
        found = [steps[label] for label in axes.get(axis, ()) if label in steps]
        return max(found, default=channels)

    return sorted(range(len(copy.shape)), key=lambda k: -step(k))
