"""A product and what follows it: one kernel, or the library's part of it and maps.

Where a library is installed and the whole is none of its products, it is parted: what is small
beside the product comes before, then as much as the library does, then the rest, element by
element.  Without the library every call's own kernel computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from graphflow.codegen.contraction.labels import place_of_product, without
from graphflow.codegen.cuda.convolution import Convolution
from graphflow.codegen.cuda.filters import by_library, in_order, order_of_copy, strides_in
from graphflow.codegen.cuda.matmul import Matmul
from graphflow.codegen.cuda.padding import padded
from graphflow.codegen.cuda.product import axes_of, plan_of, product_call
from graphflow.codegen.layout import Layout, contiguous, real_layout, view_of
from graphflow.codegen.library import Seen
from graphflow.codegen.lower import lower_group
from graphflow.codegen.schedule import Call
from graphflow.codegen.sizes import example_of
from graphflow.codegen.task import LowerContext
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.passes.dataflow import is_alias
from graphflow.records import replace

LEAST_WORK = 1 << 20
"""A product of fewer multiplications is not worth kernels of its own, whoever computes it."""
FAR = 8
"""What is so many times smaller than a product is worth a pass of its own before it."""
MOST_STAGES = 4
"""So many values are tried as what the library makes, the furthest first."""
TRIED = -2
"""The buffer of a result of which only the description is wanted."""


def lower_product(
    body: Graph, operands: Sequence[Layout], results: Sequence[Layout], context: LowerContext
) -> list[Call]:
    """The calls that compute the product in ``body`` and everything that follows it."""
    product = _product_in(body)
    if 0 in product.shape:
        return []
    if any(n not in body.inputs for n in product.inputs):
        return _padded(body, product, dict(zip(body.inputs, operands)), results, context)
    operands, results = ([real_layout(a) for a in group] for group in (operands, results))
    call = product_call(body, product, operands, results, context)
    how, plan = context.backend, plan_of(call)
    fits = how.matmuls and not isinstance(plan, str) and isinstance(plan.asked, Matmul)
    if fits or not (how.matmuls or how.convolutions) or _is_small(product):
        return [call]
    return _parted(body, dict(zip(body.inputs, operands)), results, context) or [call]


def _padded(
    body: Graph,
    product: Node,
    at: dict[Node, Layout],
    results: Sequence[Layout],
    context: LowerContext,
) -> list[Call]:
    """The calls of ``body``, whose inputs lie ``at`` places and which pads operands of its product:
    copies, then the product, which says that it reads what they are copies of."""
    sources: set[int] = set()
    before: list[Call] = []
    inner = [n for n in product.inputs if n not in at]
    for operand in inner:
        views, node = [], operand
        while is_alias(node):
            views.append(node)
            node = node.inputs[0]
        source = at[node.inputs[0]]
        order = _order(product, operand, views, node, at, results)
        copy = in_order(node.tensor_type, order, context)
        front = Graph((node.inputs[0],), (node,), name="body")
        made = lower_group(front, [source], [copy], context)
        before += [replace(call, library=padded(node, source, copy, made)) for call in made]
        sources.add(source.buffer)
        found = _shown(views, copy)
        assert found is not None
        at[operand] = found
    rest, kept = without(body, inner)
    calls = lower_product(rest, [at[n] for n in kept], results, context)
    return [
        *before,
        *(replace(c, reads=c.reads | sources) if isinstance(c.library, Seen) else c for c in calls),
    ]


def _order(
    product: Node,
    operand: Node,
    views: Sequence[Node],
    padded: Node,
    at: Mapping[Node, Layout],
    results: Sequence[Layout],
) -> list[int]:
    """In which order the axes of a ``padded`` copy lie best, if ``views`` can show it so."""
    plain, copy = list(range(len(padded.shape))), contiguous(TRIED, padded.tensor_type)
    position = product.inputs.index(operand)
    shown = _shown(views, copy)
    if shown is None or product.inputs[1 - position] not in at or results[0].shape != product.shape:
        return plain
    order = order_of_copy(product, position, copy, shown, at, results[0])
    lie = Layout(TRIED, copy.type, 0, strides_in(copy.shape, order))
    return plain if _shown(views, lie) is None else order


def _shown(views: Sequence[Node], layout: Layout) -> Layout | None:
    """What ``views``, the outermost first, show of something that lies so, if strides can tell."""
    found: Layout | None = layout
    for view in reversed(views):
        found = found and view_of(view, found)
    return found


def _product_in(body: Graph) -> Node:
    return next(n for n in body.nodes if n.op.kind is Kind.CONTRACTION)


def _is_small(product: Node) -> bool:
    work = 1
    for extent in axes_of(product)[1].values():
        work *= example_of(extent)
    return work < LEAST_WORK


def _parted(
    body: Graph, at: Mapping[Node, Layout], results: Sequence[Layout], context: LowerContext
) -> list[Call]:
    """The calls of ``body``, whose inputs lie ``at`` places, with one that the library takes;
    none if there is no such part."""
    made = _vectors(body, _product_in(body))
    before: list[Call] = []
    if made:
        places = [context.temporary(node.tensor_type) for node in made]
        first = Graph(body.inputs, tuple(made), name="body")
        before = lower_group(first, [at[n] for n in body.inputs], places, context)
        rest, kept = without(body, made)
        known = {**at, **dict(zip(made, places))}
        body, at = rest, dict(zip(rest.inputs, (known[n] for n in kept)))
    for stage in reversed(_stages(body)[:MOST_STAGES]):
        front = Graph(_needed(body, stage), (stage,), name="body")
        inputs = [at[n] for n in front.inputs]
        product = _product_in(front)
        whole = body.outputs == (stage,)
        tried = results[0] if whole else contiguous(TRIED, stage.tensor_type)
        call = product_call(front, product, inputs, [tried], context)
        if not _is_taken(call, context):
            continue
        read = [at[n] for n in body.inputs]
        place = partial(place_of_product, body, stage, read, results, context.temporary)
        calls, tile = by_library(front, product, inputs, call, place, whole, context)
        behind, kept = without(body, (stage,))
        lie = [tile if n is stage else at[n] for n in kept]
        return [*before, *calls, *([] if whole else lower_group(behind, lie, results, context))]
    return []


def _is_taken(call: Call, context: LowerContext) -> bool:
    """Whether a library that is there takes a product."""
    plan, how = plan_of(call, copied=True), context.backend
    if isinstance(plan, str):
        return False
    return how.convolutions if isinstance(plan.asked, Convolution) else how.matmuls


def _needed(body: Graph, stage: Node) -> tuple[Node, ...]:
    """The inputs that ``stage`` is made of."""
    seen = {stage}
    for node in reversed(body.nodes):
        if node in seen and node not in body.inputs:
            seen.update(node.inputs)
    return tuple(n for n in body.inputs if n in seen)


def _following(body: Graph, product: Node) -> dict[Node, None]:
    """The product and what depends on it, in order."""
    found = {product: None}
    for node in body.nodes:
        if any(n in found for n in node.inputs):
            found[node] = None
    return found


def _stages(body: Graph) -> list[Node]:
    """The values, from the product on, through which all that follows it goes."""
    product = _product_in(body)
    return [
        node
        for node in _following(body, product)
        if node.shape == product.shape
        and not any(n.op.kind is Kind.CONTRACTION for n in without(body, (node,))[0].nodes)
    ]


def _vectors(body: Graph, product: Node) -> list[Node]:
    """What ``body`` computes beside the product and joins with it, if all of it is less than
    that by far: a bias in another precision."""
    follows = _following(body, product)
    beside = dict.fromkeys(
        n
        for node in follows
        if node is not product
        for n in node.inputs
        if n not in follows and n not in body.inputs and n.op.kind is not Kind.LEAF
    )
    small = [n for n in beside if n.tensor_type.numel * FAR <= product.tensor_type.numel]
    return small if len(small) == len(beside) else []
