"""What an operation is on operands that hold an entry of a batch along a new first axis.

A rule of :attr:`graphflow.ir.op.OpDef.batched` applies an operation to all entries at once:
its result holds those of the entries, one after the other along the first axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from graphflow.ir.dims import Dim
from graphflow.ir.op import Application, Attrs, BatchRule, Builder, Entries, OpDef
from graphflow.ir.types import TupleType

Values = list[Any]
SIZE: Final = object()
"""Stands for the number of entries among what :func:`together` puts before an attribute."""


def again(b: Builder, op: OpDef, n: Application, inputs: Values, attrs: Attrs) -> Any:
    """``op`` applied to ``inputs``: its result, or the tuple of its results."""
    apply = b.several if isinstance(n.out, TupleType) else b.emit
    return apply(op.name, *inputs, **attrs)


def own_rank(value: Any, batched: bool) -> int:
    """The rank of an entry of an operand."""
    return len(value.shape) - batched


def repeated(b: Builder, value: Any, size: Dim) -> Any:
    """An operand that all entries share, as one that each has."""
    return b.expand(value, shape=(size, *value.shape))


def each(b: Builder, n: Application, entries: Entries) -> Values:
    """The operands, all with entries."""
    return [
        x if batched else repeated(b, x, entries.size)
        for x, batched in zip(n.inputs, entries.batched, strict=True)
    ]


def aligned(b: Builder, n: Application, entries: Entries) -> Values:
    """The operands with axes of 1 after the first, where other entries have more axes."""
    pairs = list(zip(n.inputs, entries.batched, strict=True))
    rank = max(own_rank(x, batched) for x, batched in pairs)
    return [_of_rank(b, x, rank) if batched else x for x, batched in pairs]


def _of_rank(b: Builder, x: Any, rank: int) -> Any:
    """An operand with entries of a higher rank: axes of 1 come first in each."""
    missing = (1,) * (rank + 1 - len(x.shape))
    return b.reshape(x, shape=(x.shape[0], *missing, *x.shape[1:])) if missing else x


def broadcast(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Operations whose operands broadcast: what entries share is not repeated."""
    return again(b, op, n, aligned(b, n, entries), n.attrs)


def together(**first: Any) -> BatchRule:
    """The same operation with a first axis more that all operands have.

    Axes that attributes name (``axis``, ``axes``) count one more; ``first`` is what goes before
    the values of attributes that have one an axis (:data:`SIZE`: the number of entries).
    """

    def rule(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
        attrs = moved(n.attrs)
        for key, value in first.items():
            attrs[key] = (entries.size if value is SIZE else value, *attrs[key])
        return again(b, op, n, each(b, n, entries), attrs)

    return rule


TOGETHER: Final[BatchRule] = together()
"""For operations whose attributes name axes at most."""


def moved(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """``attrs`` with the axes they name one further on."""
    found = dict(attrs)
    if "axis" in attrs:
        found["axis"] = attrs["axis"] + 1
    if "axes" in attrs:
        found["axes"] = tuple(axis + 1 for axis in attrs["axes"])
    return found


def permuted(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """The first axis stays the first."""
    return b.permute(n.inputs[0], axes=(0, *(axis + 1 for axis in n.attrs["axes"])))


def expanded(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """New axes come after the first."""
    (x,), shape = n.inputs, n.attrs["shape"]
    return b.expand(_of_rank(b, x, len(shape)), shape=(x.shape[0], *shape))


def strided(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """The entries' rows are one: an entry begins where the one before ends."""
    (x,), attrs = n.inputs, n.attrs
    size, length = x.shape
    return b.strided(
        b.reshape(x, shape=(size * length,)), shape=(size, *attrs["shape"]),
        strides=(length, *attrs["strides"]), offset=attrs["offset"],
    )  # fmt: skip


def taken(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Positions that entries have of their own are axes of the index like others, unless each
    takes from rows of its own: then it gathers."""
    (x, index), axis = n.inputs, n.attrs["axis"]
    if not entries.batched[1]:
        return b.take(x, index, axis=axis + 1)
    if not entries.batched[0]:
        found = b.take(x, index, axis=axis)
        rest = (k for k in range(len(found.shape)) if k != axis)
        return b.permute(found, axes=(axis, *rest)) if axis else found
    size, *places = index.shape
    before, after = x.shape[1 : axis + 1], x.shape[axis + 2 :]
    count: Dim = 1
    for extent in places:
        count = count * extent
    column = b.reshape(index, shape=(size, *(1,) * len(before), count, *(1,) * len(after)))
    rows = b.expand(column, shape=(size, *before, count, *after))
    found = b.gather(x, rows, axis=axis + 1)
    return b.reshape(found, shape=(size, *before, *places, *after))


def searched(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Values of all entries in one line, or each entry's in lines of its own."""
    lines, values = n.inputs
    if not entries.batched[0] and len(lines.shape) == 1:
        return b.searchsorted(lines, values, **n.attrs)
    lines, values = each(b, n, entries)
    shape = tuple(values.shape)
    if len(lines.shape) == 2:  # one line an entry, and values of any shape
        count: Dim = 1
        for extent in shape[1:]:
            count = count * extent
        values = b.reshape(values, shape=(shape[0], count))
    found = b.searchsorted(lines, values, **n.attrs)
    return found if tuple(found.shape) == shape else b.reshape(found, shape=shape)


def labelled(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """A label more, of the operands that have entries and of the result."""
    attrs = dict(n.attrs)
    new = 1 + max((*attrs["left"], *attrs["right"], -1))
    sides = [side for side, batched in zip(("left", "right"), entries.batched) if batched]
    for key in (*sides, "out"):
        attrs[key] = (new, *attrs[key])
    return b.contract(*n.inputs, **attrs)


def convolved(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Images of all entries are images; kernels of their own make groups of their own.

    Operands are ``x[N, G, C, *S]`` and ``w[G, O, C, *K]``, with the entries before that.
    """
    x, w = n.inputs
    if not entries.batched[1]:
        size, images = x.shape[:2]
        found = b.conv(b.reshape(x, shape=(size * images, *x.shape[2:])), w, **n.attrs)
        return b.reshape(found, shape=(size, images, *found.shape[1:]))
    size, groups, outs = w.shape[:3]
    if not entries.batched[0] and groups == 1:  # one image, under more kernels
        found = b.conv(x, b.reshape(w, shape=(1, size * outs, *w.shape[3:])), **n.attrs)
        apart = b.reshape(found, shape=(found.shape[0], size, 1, outs, *found.shape[3:]))
        return b.permute(apart, axes=_swapped(apart))
    x, w = each(b, n, entries)
    turned = b.permute(x, axes=_swapped(x))
    images = turned.shape[0]
    found = b.conv(
        b.reshape(turned, shape=(images, size * groups, *turned.shape[3:])),
        b.reshape(w, shape=(size * groups, *w.shape[2:])), **n.attrs,
    )  # fmt: skip
    apart = b.reshape(found, shape=(images, size, groups, *found.shape[2:]))
    return b.permute(apart, axes=_swapped(apart))


def _swapped(x: Any) -> tuple[int, ...]:
    return (1, 0, *range(2, len(x.shape)))


def solved(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Right sides of all entries are columns for a matrix that they share."""
    left, right = n.inputs
    if entries.batched[0] or len(left.shape) > 2 or len(right.shape) > 3:
        return broadcast(b, op, n, entries)
    size, rows, columns = right.shape
    wide = b.reshape(b.permute(right, axes=(1, 0, 2)), shape=(rows, size * columns))
    found = b.reshape(b.emit(op.name, left, wide, **n.attrs), shape=(rows, size, columns))
    return b.permute(found, axes=(1, 0, 2))


def limited(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Matrices, and limits that broadcast to the axes before the last two."""
    (x, *limits), (own, *others) = n.inputs, entries.batched
    rank = own_rank(x, own) - 2
    found = [_of_rank(b, y, rank) if batched else y for y, batched in zip(limits, others)]
    return again(b, op, n, [x if own else repeated(b, x, entries.size), *found], n.attrs)


def merged(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Operations over a batch already: entries are more of it."""
    inputs = each(b, n, entries)
    size, batch = inputs[0].shape[:2]
    flat = [b.reshape(x, shape=(size * batch, *x.shape[2:])) for x in inputs]
    results = again(b, op, n, flat, n.attrs)
    return tuple(b.reshape(x, shape=(size, batch, *x.shape[1:])) for x in results)


def drawn(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """Numbers for every entry, by the same call of the generator."""
    shape = (entries.size, *n.attrs["shape"])
    return again(b, op, n, list(n.inputs), {**n.attrs, "shape": shape})


def item(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    """One of several results, which is one of all entries' results."""
    return n.inputs[0][n.attrs["index"]]
