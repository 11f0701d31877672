"""Laws whose right-hand side has to be computed: views, casts, broadcasts.

Each function takes the node a pattern matched and what the pattern bound, and
returns the replacement, or ``None`` where the law does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.build import NODES, constant, emit
from graphflow.ir.dims import Dim, Shape, SymDim, dim_product
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.ir.pattern import Bindings, fit, splat_of
from graphflow.ir.products import labels_of
from graphflow.ir.types import DType, TensorType, bool_, broadcast_shapes


def same_type(node: Node, bound: Bindings) -> Node | None:
    """A view that shows all of its operand, in place: the operand.

    ``reshape``, ``slice`` and ``pad`` of an operand of the result's type can do
    nothing else; padding can also cut and add, so it is looked at.
    """
    x = bound["x"]
    if x.type != node.type:
        return None
    if any(low != 0 for low in node.attrs.get("low", ())):
        return None
    return x


def swapped_difference(node: Node, bound: Bindings) -> Node | None:
    """``-(x - y) = y - x`` for integers (for floats, x = y gives -0.0 and 0.0)."""
    if node.dtype.kind != "int":
        return None
    return fit(NODES.sub(bound["y"], bound["x"]), node.tensor_type)


def absolute_of_negative(node: Node, bound: Bindings) -> Node | None:
    """``|-x| = |x|``; an unsigned ``-x`` wraps around."""
    return NODES.abs(bound["x"]) if node.dtype.kind != "uint" else None


def swapped_choice(node: Node, bound: Bindings) -> Node | None:
    """``where(not c, x, y) = where(c, y, x)`` for a boolean ``c``."""
    if bound["c"].dtype is not bool_:
        return None
    return NODES.where(bound["c"], bound["y"], bound["x"])  # type: ignore[no-any-return]


def quotient_by_power_of_two(node: Node, bound: Bindings) -> Node | None:
    """``x / 2^k = x * 2^-k``, exact while 2^-k is a normal number."""
    scalar = splat_of(bound["y"])
    if scalar is None or node.dtype.short not in ("f32", "f64"):
        return None
    value = float(scalar.attrs["value"].array)
    if not math.isfinite(value) or abs(math.frexp(value)[0]) != 0.5:
        return None
    inverse, limits = 1.0 / value, np.finfo(node.dtype.numpy)
    if not float(limits.tiny) <= abs(inverse) <= float(limits.max):
        return None
    return fit(NODES.mul(bound["x"], constant(inverse, node.dtype)), node.tensor_type)


def normal_share(node: Node, bound: Bindings) -> Node | None:
    """``erf(x c) + 1 = 2 Phi(x)`` for a ``c`` that is ``sqrt(1/2)`` in its type."""
    factor = splat_of(bound["c"])
    if factor is None or node.dtype.short not in ("f32", "f64"):
        return None
    apart = abs(float(factor.attrs["value"].array) - math.sqrt(0.5))
    if apart > float(np.finfo(node.dtype.numpy).eps):
        return None
    doubled = NODES.mul(NODES.phi(bound["x"]), constant(2.0, node.dtype))
    return fit(doubled, node.tensor_type)


# ---- products ------------------------------------------------------------------------

FEW_SUMS, MANY_TERMS = 16, 1 << 17
"""Fewer sums than this, of so many terms in all, are too few for threads to share as they are."""


def few_long_sums(node: Node, bound: Bindings) -> Node | None:
    """A product with few results is ``Σ x y`` where an operand has an element for every term.

    Nothing is read twice, so that tiles gain nothing, and sums can be cut for threads to share,
    as a product's never are.  Halves stay: their terms are not rounded.
    """
    operands, (*sides, out) = node.inputs, labels_of(node)
    depth = tuple(label for label in sides[0] if label not in out)
    if depth != tuple(label for label in sides[1] if label not in out):
        return None
    if node.dtype.itemsize < 4 or node.dtype is not operands[0].dtype:
        return None
    sizes = [operand.tensor_type.numel for operand in operands]
    results = node.tensor_type.numel
    if any(isinstance(size, SymDim) for size in (*sizes, results)) or not 0 < results < FEW_SUMS:
        return None
    views = [_ordered(operand, own, (*out, *depth)) for operand, own in zip(operands, sides)]
    product = NODES.mul(*views)
    if not MANY_TERMS <= product.tensor_type.numel <= max(sizes):
        return None
    axes = tuple(range(len(out), len(out) + len(depth)))
    return NODES.reduce_sum(product, axes=axes)  # type: ignore[no-any-return]


def _ordered(node: Node, labels: tuple[int, ...], order: tuple[int, ...]) -> Node:
    """``node`` with an axis for every label of ``order``: of extent 1 where it has none."""
    axes = tuple(labels.index(label) for label in order if label in labels)
    extents = dict(zip(labels, node.shape))
    turned = node if axes == tuple(range(len(labels))) else NODES.permute(node, axes=axes)
    shape = tuple(extents.get(label, 1) for label in order)
    return NODES.reshape(turned, shape=shape)  # type: ignore[no-any-return]


# ---- casts ---------------------------------------------------------------------------


def tanh_of_large(node: Node, bound: Bindings) -> Node | None:
    """``tanh(x > k ? x : y) = x > k ? 1 : tanh(y)`` where tanh has rounded to 1: k ≥ 20."""
    limit = splat_of(bound["k"])
    if limit is None or node.dtype.short not in ("f32", "f64"):
        return None
    if float(limit.attrs["value"].array) < 20.0:
        return None
    condition = NODES.gt(bound["x"], bound["k"])
    one = constant(1.0, node.dtype)
    return fit(NODES.where(condition, one, NODES.tanh(bound["y"])), node.tensor_type)


def tanh_of_bounded_softplus(node: Node, bound: Bindings) -> Node | None:
    """:func:`tanh_of_softplus` of ``min(x, k)``, from where on tanh has rounded to 1.

    Up to ``e^40`` nothing overflows in single precision, so the quotient needs no guard.
    """
    limit = splat_of(bound["k"])
    if limit is None or node.dtype.short not in ("f32", "f64"):
        return None
    if not 20.0 <= float(limit.attrs["value"].array) <= 40.0:
        return None
    e = NODES.exp(NODES.where(NODES.gt(bound["x"], bound["k"]), bound["k"], bound["x"]))
    n = e * (e + 2.0)
    return fit(n / (n + 2.0), node.tensor_type)


def tanh_of_softplus(node: Node, bound: Bindings) -> Node | None:
    """``tanh(log(1 + e)) = n / (n + 2)`` with ``n = e * (e + 2)`` and ``e = exp(x)``.

    Once ``n`` is so large that the quotient rounds to 1, it is 1: ``n`` may be infinite.
    """
    if node.dtype.short not in ("f32", "f64"):
        return None
    e = NODES.exp(bound["x"])
    n = e * (e + 2.0)
    one = constant(1.0, node.dtype)
    return fit(NODES.where(NODES.gt(n, 2.0**60), one, n / (n + 2.0)), node.tensor_type)


def cast_to_same(node: Node, bound: Bindings) -> Node | None:
    """A cast to the dtype the operand has."""
    return bound["x"] if bound["x"].dtype is node.dtype else None


def cast_of_lossless_cast(node: Node, bound: Bindings) -> Node | None:
    """``cast(cast(x, a), b) = cast(x, b)`` when ``a`` holds every value of ``x``."""
    source, middle = bound["x"].dtype, node.inputs[0].dtype
    if not is_lossless(source, middle):
        return None
    if middle.is_floating_point and not source.is_floating_point:
        # Out of range, integers wrap around in a cast, floats do not.
        if not node.dtype.is_floating_point and not is_lossless(source, node.dtype):
            return None
    return NODES.cast(bound["x"], dtype=node.dtype)  # type: ignore[no-any-return]


def is_lossless(source: DType, target: DType) -> bool:
    """True when ``target`` has every value of ``source``."""
    if source is target:
        return True
    if target is bool_ or source.is_complex or target.is_complex:
        return False
    if source is bool_:
        return True
    if source.is_floating_point:
        return target.is_floating_point and _holds_float(source, target)
    bits = 8 * source.itemsize - (source.kind == "int")
    if target.is_floating_point:
        return bits <= _SIGNIFICAND[target.short] and target.short != "f16"
    if source.kind == "int" and target.kind == "uint":
        return False
    return bits <= 8 * target.itemsize - (target.kind == "int")


_SIGNIFICAND = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}


def _holds_float(source: DType, target: DType) -> bool:
    return target.itemsize > source.itemsize  # bf16 and f16 hold neither the other


# ---- views of views ------------------------------------------------------------------


def reshape_of_reshape(node: Node, bound: Bindings) -> Node | None:
    """Only the last shape counts."""
    return NODES.reshape(bound["x"], shape=node.shape)  # type: ignore[no-any-return]


def permute_of_unit_axes(node: Node, bound: Bindings) -> Node | None:
    """A permutation that keeps the order of all axes longer than 1: a reshape."""
    x = bound["x"]
    long = [axis for axis in node.attrs["axes"] if x.shape[axis] != 1]
    if long != sorted(long):
        return None
    return x if x.type == node.type else NODES.reshape(x, shape=node.shape)


def permute_of_permute(node: Node, bound: Bindings) -> Node | None:
    """Permutations compose."""
    inner = node.inputs[0].attrs["axes"]
    axes = tuple(inner[axis] for axis in node.attrs["axes"])
    return NODES.permute(bound["x"], axes=axes)  # type: ignore[no-any-return]


def expand_by_unit_axes(node: Node, bound: Bindings) -> Node | None:
    """An expansion that repeats nothing: a reshape, or nothing at all."""
    x = bound["x"]
    if x.type == node.type:
        return x
    rank = len(x.shape)
    if rank == 0 and splat_of(x) is not None:
        return None  # a filled tensor is always an expanded constant
    if node.shape[len(node.shape) - rank :] != x.shape:
        return None
    if any(extent != 1 for extent in node.shape[: len(node.shape) - rank]):
        return None
    return NODES.reshape(x, shape=node.shape)  # type: ignore[no-any-return]


def expand_of_expand(node: Node, bound: Bindings) -> Node | None:
    """Only the last shape counts."""
    return NODES.expand(bound["x"], shape=node.shape)  # type: ignore[no-any-return]


def expand_of_reshape(node: Node, bound: Bindings) -> Node | None:
    """``expand(reshape(x))`` where the reshape only puts 1s in front: ``expand(x)``."""
    x, shape = bound["x"], node.inputs[0].shape
    front = len(shape) - len(x.shape)
    if front < 0 or shape[front:] != x.shape or any(extent != 1 for extent in shape[:front]):
        return None
    return NODES.expand(x, shape=node.shape)  # type: ignore[no-any-return]


def slice_of_slice(node: Node, bound: Bindings) -> Node | None:
    """Slices compose (their steps are positive)."""
    inner, outer = node.inputs[0].attrs, node.attrs
    starts: list[Dim] = []
    limits: list[Dim] = []
    steps: list[int] = []
    for axis, extent in enumerate(node.shape):
        step = inner["steps"][axis]
        start = inner["starts"][axis] + outer["starts"][axis] * step
        step = step * outer["steps"][axis]
        starts.append(start)
        steps.append(step)
        limits.append(start if extent == 0 else start + (extent - 1) * step + 1)
    made = NODES.slice(bound["x"], starts=tuple(starts), limits=tuple(limits), steps=tuple(steps))
    return made if made.type == node.type else None


def flip_of_unit_axes(node: Node, bound: Bindings) -> Node | None:
    """Axes of extent 1 have no direction."""
    x, axes = bound["x"], node.attrs["axes"]
    long = tuple(axis for axis in axes if x.shape[axis] != 1)
    if len(long) == len(axes):
        return x if not axes else None
    return NODES.flip(x, axes=long) if long else x


def flip_of_flip(node: Node, bound: Bindings) -> Node | None:
    """Two reversals of the same axis cancel."""
    axes = set(node.attrs["axes"]) ^ set(node.inputs[0].attrs["axes"])
    return NODES.flip(bound["x"], axes=tuple(sorted(axes))) if axes else bound["x"]


def concatenate_of_few(node: Node, bound: Bindings) -> Node | None:
    """Empty operands add nothing; one operand is the result."""
    axis = node.attrs["axis"]
    kept = [x for x in node.inputs if x.shape[axis] != 0]
    if len(node.inputs) == 1 or len(kept) == 1:
        return kept[0] if kept else node.inputs[0]
    if not kept or len(kept) == len(node.inputs):
        return None
    return emit(node.op, *kept, axis=axis)


MOST_PARTS = 256
"""So many parts of one sum are put together at a time."""


def sum_of_paddings(node: Node, bound: Bindings) -> Node | None:
    """``pad(x) + pad(y) + …`` of parts that lie side by side along an axis: they, put together.

    That is the gradient of a tensor that was taken apart: ``chunk``, the gates of an LSTM cell.
    What is left of a result that the parts do not fill stays padding.
    """
    parts: list[Node] = []
    pending = [node]
    while pending:
        term = pending.pop()
        if term.op is node.op:
            pending.extend(term.inputs)
        elif term.op.name != "pad" or term.attrs["value"] != 0 or len(parts) == MOST_PARTS:
            return None
        else:
            parts.append(term)
    axis = _padded_axis(parts)
    if axis is None or any(part.type != node.type for part in parts):
        return None
    parts.sort(key=lambda part: part.attrs["low"][axis])
    first, last = parts[0], parts[-1]
    end = first.attrs["low"][axis]
    for part in parts:
        if part.attrs["low"][axis] != end:
            return None
        end += part.inputs[0].shape[axis]
    whole = emit("concatenate", *_parts_of(parts, axis), axis=axis)
    low, high = first.attrs["low"], last.attrs["high"]
    return whole if whole.type == node.type else NODES.pad(whole, low=low, high=high, value=0)


def _parts_of(padded: list[Node], axis: int) -> Iterator[Node]:
    """What is padded; of what has been put together already, the parts."""
    for node in padded:
        part = node.inputs[0]
        joined = part.op.name == "concatenate" and part.attrs["axis"] == axis
        yield from part.inputs if joined and len(part.inputs) < MOST_PARTS else (part,)


def _padded_axis(parts: list[Node]) -> int | None:
    """The one axis along which all of ``parts`` are padded, if their extents there are known."""
    ends = [zip(part.attrs["low"], part.attrs["high"]) for part in parts]
    found = {axis for own in ends for axis, around in enumerate(own) if around != (0, 0)}
    if len(found) != 1:
        return None
    (axis,) = found
    sized = all(isinstance(part.inputs[0].shape[axis], int) for part in parts)
    return axis if sized else None


# ---- reductions ----------------------------------------------------------------------


def reduction_of_unit_axes(node: Node, bound: Bindings) -> Node | None:
    """Folding an axis of extent 1 only drops it."""
    x, axes = bound["x"], node.attrs["axes"]
    unit = {axis for axis in axes if x.shape[axis] == 1}
    if not axes:
        return x
    if not unit or x.dtype is not node.dtype:
        return None
    shape = tuple(extent for axis, extent in enumerate(x.shape) if axis not in unit)
    view = NODES.reshape(x, shape=shape)
    left = tuple(a - sum(u < a for u in unit) for a in axes if a not in unit)
    return emit(node.op, view, **{**node.attrs, "axes": left}) if left else view


def reduction_of_reduction(node: Node, bound: Bindings) -> Node | None:
    """Folding twice is folding all the axes at once."""
    inner = node.inputs[0].attrs["axes"]
    kept = [axis for axis in range(len(bound["x"].shape)) if axis not in inner]
    axes = sorted([*inner, *(kept[axis] for axis in node.attrs["axes"])])
    return emit(node.op, bound["x"], **{**node.attrs, "axes": tuple(axes)})


def sum_of_copies(node: Node, bound: Bindings) -> Node | None:
    """The sum of ``n`` copies of ``x`` is ``n * x``."""
    x, repeated = bound["x"], node.inputs[0]
    if node.dtype.short not in ("f32", "f64", "i64") or x.dtype is not node.dtype:
        return None
    front = len(repeated.shape) - len(x.shape)
    dropped: set[int] = set()
    for axis in node.attrs["axes"]:
        if axis >= front:
            if x.shape[axis - front] != 1:
                return None
            dropped.add(axis - front)
    count = dim_product(tuple(repeated.shape[axis] for axis in node.attrs["axes"]))
    if isinstance(count, SymDim) or count == 0 or count > 1 << 24:
        return None
    shape = tuple(extent for axis, extent in enumerate(x.shape) if axis not in dropped)
    view = x if shape == x.shape else NODES.reshape(x, shape=shape)
    return fit(NODES.mul(view, constant(count, node.dtype)), node.tensor_type)


def sum_of_scaled(node: Node, bound: Bindings) -> Node | None:
    """``Σ x w = w Σ x`` for a factor ``w`` that lies in memory and repeats along the folded axes.

    The gradient of a batch norm adds up what those of its weight and bias add up, but scaled:
    ``Σ x w`` and ``Σ (x w) y`` become ``w Σ x`` and ``w Σ x y``.
    """
    product, axes = node.inputs[0], node.attrs["axes"]
    if node.dtype.short not in ("f32", "f64"):
        return None
    for one, two in (product.inputs, product.inputs[::-1]):
        if _repeats(one, product.shape, axes):
            return _scaled_sum(node, two, one)
        if one.op.name == "mul" and one.shape == product.shape:
            for scaled, factor in (one.inputs, one.inputs[::-1]):
                if _repeats(factor, product.shape, axes):
                    return _scaled_sum(node, NODES.mul(scaled, two), factor)
    return None


def _repeats(factor: Node, shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether ``factor`` is a leaf, or a view of one, that is the same along ``axes``."""
    front = len(shape) - len(factor.shape)
    if any(axis >= front and factor.shape[axis - front] != 1 for axis in axes):
        return False
    if factor.tensor_type.numel == 1:
        return False
    while factor.op.kind is Kind.VIEW and len(factor.inputs) == 1:
        factor = factor.inputs[0]
    return factor.op.kind is Kind.LEAF


def _scaled_sum(node: Node, x: Node, factor: Node) -> Node | None:
    """``factor`` times the sum of ``x`` over the axes that reduction ``node`` folds."""
    shape, axes = node.inputs[0].shape, node.attrs["axes"]
    if x.shape != shape:
        return None
    front = len(shape) - len(factor.shape)
    kept = tuple(e for axis, e in enumerate(factor.shape, front) if axis not in axes)
    view = factor if kept == factor.shape else NODES.reshape(factor, shape=kept)
    return fit(NODES.mul(NODES.reduce_sum(x, axes=axes), view), node.tensor_type)


# ---- broadcasts ----------------------------------------------------------------------


def narrowed(node: Node) -> Node | None:
    """Work on broadcast values done before the broadcast, or without it.

    * A view of a filled tensor is a filled tensor of another shape (but not of another dtype).
    * ``f(expand(s), expand(t)) = expand(f(s, t))`` for single values s and t.
    * ``f(x, expand(y)) = f(x, y)`` where broadcasting gives the same shape.
    """
    kind = node.op.kind
    if kind is Kind.ELEMENTWISE:
        if any(n.op.name == "expand" for n in node.inputs):
            return _narrowed_elementwise(node)
    elif kind is Kind.VIEW and node.op.fill is None and node.inputs:
        return _narrowed_view(node)
    return None


def _narrowed_view(node: Node) -> Node | None:
    if node.op.name == "expand":
        return None
    singles = {n.inputs[0] if n.op.name == "expand" else n for n in node.inputs}
    if len(singles) != 1:
        return None
    single = singles.pop()
    if not isinstance(single.type, TensorType) or single.type.shape != ():
        return None
    if single.dtype is not node.dtype:
        return None  # a view of numbers as parts of others
    if node.inputs[0] is single and splat_of(single) is None:
        return None  # a view of one value that is no constant is that value
    return fit(single, node.tensor_type)


def _narrowed_elementwise(node: Node) -> Node | None:
    inputs = list(node.inputs)
    sources = [n.inputs[0] if n.op.name == "expand" else n for n in inputs]
    if all(n.shape == () for n in sources):
        return fit(emit(node.op, *sources, **node.attrs), node.tensor_type)
    changed = False
    for i, source in enumerate(sources):
        if source is not inputs[i]:
            shapes = [n.shape for j, n in enumerate(inputs) if j != i]
            if _broadcasts_to([*shapes, source.shape], node.shape):
                inputs[i] = source
                changed = True
    return emit(node.op, *inputs, **node.attrs) if changed else None


def _broadcasts_to(shapes: list[Shape], shape: Shape) -> bool:
    try:
        return broadcast_shapes(*shapes) == shape
    except ShapeError:
        return False
