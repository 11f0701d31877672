"""From a graph of tensors to a DAG of scalars.

``Evaluator.value(node, index)`` is what ``node`` holds at ``index``, as loop
IR values.  Views are index arithmetic, gathers are indices read from data,
padding is a choice; only operands of the group are loads.  Everything is
memoised by node and index, and nothing recurses, so long chains are fine.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from graphflow.codegen.layout import Layout, view_of
from graphflow.codegen.loops import (
    Apply,
    Checked,
    Choose,
    Count,
    Fold,
    Literal,
    Load,
    Position,
    Slot,
    Value,
    Within,
)
from graphflow.codegen.sizes import is_fixed, surely, whole
from graphflow.errors import CompileError
from graphflow.ir.affine import Affine, Condition, Index, Piece
from graphflow.ir.node import Node
from graphflow.ir.op import GATHERED, POSITION, Kind
from graphflow.ir.types import DType, bool_, int64

Guard: TypeAlias = tuple[Condition, ...]
Key: TypeAlias = tuple[Node, Index, Guard]
Steps: TypeAlias = Generator[Key, Value, Value]

ZERO = Affine()
SMALL_COUNT = 16
"""Numbers up to this are written into kernels even if they happen to be extents."""
MOST_COUNTED = 6


class Memory:
    """The slots of a group: one an address, and one a written buffer.

    A buffer that is both read and written is reached through one pointer only, so
    that the promise that slots do not alias holds for in-place results; :meth:`join` makes it so
    for others.  With ``whole``, pointers are to whole buffers, so that no index is negative.
    """

    def __init__(
        self, operands: Sequence[Layout], results: Sequence[Layout], whole: bool = False
    ) -> None:
        self._whole = whole
        self._slots: dict[tuple[int, int, DType], Slot] = {}
        self._written: dict[int, Slot] = {}
        read = {layout.buffer for layout in operands}
        for layout in results:
            if layout.buffer in read:
                self.join(layout)

    def join(self, layout: Layout) -> None:
        """Reach all of the buffer of result ``layout`` through one pointer."""
        if layout.buffer not in self._written:
            self._written[layout.buffer] = self._slot(layout)

    def _slot(self, layout: Layout, extra: int = 0) -> Slot:
        return self._slot_at((layout.buffer, layout.offset + extra, layout.type.dtype))

    def _slot_at(self, key: tuple[int, int, DType]) -> Slot:
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(*key)
        return slot

    def element(self, layout: Layout, index: Index) -> tuple[Slot, Affine]:
        """The slot and the flat index of element ``index`` of ``layout``."""
        terms: dict[str, int] = {}
        offset = 0
        for part, stride in zip(index, layout.strides):
            offset += whole(part.offset) * stride
            for name, coefficient in part.terms:
                terms[name] = terms.get(name, 0) + whole(coefficient) * stride
        if self._whole:
            slot = self._slot_at((layout.buffer, 0, layout.type.dtype))
            return slot, Affine.of(terms, layout.offset + offset)
        written = self._written.get(layout.buffer)
        if written is None:
            return self._slot(layout, offset), Affine.of(terms)
        if (layout.buffer, layout.offset, layout.type.dtype) in self._slots:
            return self._slot(layout), Affine.of(terms, offset)
        return written, Affine.of(terms, offset + layout.offset - written.offset)


class Evaluator:
    """Evaluates nodes at indices; see the module's text.

    ``extents`` gives the range of every domain variable; those of ``reduced``
    are bound by reductions, one a reduced axis.
    """

    def __init__(
        self,
        layouts: Mapping[Node, Layout],
        memory: Memory,
        extents: Mapping[str, int],
        reduced: Sequence[str],
        failure: Callable[[str], int],
    ) -> None:
        self.layouts, self.memory, self.failure = layouts, memory, failure
        self.extents = dict(extents)
        self.reduced = tuple(reduced)
        self.bits = {name: 1 << i for i, name in enumerate(extents)}
        self.reduced_mask = sum(self.bits[name] for name in reduced)
        self.kept_mask = sum(self.bits[name] for name in extents) - self.reduced_mask
        self._counts = domain_counts(list(extents.values()))
        self._checked: dict[str, Checked] = {}
        self._values: dict[Key, Value] = {}
        self._loads: dict[Any, Load] = {}
        self._within: dict[Guard, Within] = {}

    def variables(self, names: Sequence[str]) -> Index:
        """The index that is just these variables (those of one element are 0)."""
        return tuple(Affine.variable(n) if self.extents[n] != 1 else ZERO for n in names)

    def value(self, node: Node, index: Index, guard: Guard = ()) -> Value:
        """What ``node`` holds at ``index``; loads happen only where ``guard`` holds."""
        known = self._values
        first = (node, index, guard)
        stack = [(first, self._steps(*first))]
        answer: Value | None = None
        while stack:
            key, steps = stack[-1]
            try:
                request = next(steps) if answer is None else steps.send(answer)
            except StopIteration as done:
                answer = known[key] = done.value
                stack.pop()
                continue
            answer = known.get(request)
            if answer is None:
                stack.append((request, self._steps(*request)))
        assert answer is not None
        return answer

    def varies(self, index: Affine) -> int:
        """The domain variables that ``index`` depends on, as bits."""
        mask = 0
        for name, _ in index.terms:
            mask |= self.bits[name]
        return mask

    def _steps(self, node: Node, index: Index, guard: Guard) -> Steps:
        layout = self._layout(node)
        if layout is not None:
            return self._operand(layout, index, guard)
        handler = _HANDLERS.get(node.op.kind)
        if handler is None:
            raise CompileError(
                f"{node.op.name} ({node.op.kind.value}) cannot be part of a loop kernel; "
                "make its result an operand of the group"
            )
        return handler(self, node, index, guard)

    def _layout(self, node: Node) -> Layout | None:
        """Where ``node`` lies, if it is an operand or a view of one without an index map.

        A general reshape has no affine map, but strides may express it.
        """
        chain: list[Node] = []
        while node not in self.layouts:
            if node.op.kind is not Kind.VIEW or len(node.inputs) != 1:
                return None
            if not chain and self._map(node, self._unknown(node)):
                return None
            chain.append(node)
            node = node.inputs[0]
        layout: Layout | None = self.layouts[node]
        for view in reversed(chain):
            layout = view_of(view, layout) if layout is not None else None
        return layout

    def _unknown(self, node: Node) -> Index:
        return tuple(Affine.variable(f"i{axis}") for axis in range(len(node.shape)))

    def _map(self, node: Node, index: Index) -> Sequence[Piece]:
        """The pieces by the operation's index map; none if it has no map here."""
        rule = node.op.index
        if rule is None:
            return ()
        return rule([n.tensor_type for n in node.inputs], node.attrs, index) or ()

    def load(self, layout: Layout, index: Index, guard: Guard = ()) -> Value:
        """The element of ``layout`` at ``index``."""
        if 0 in layout.shape:  # nothing is ever read, and a hoisted load would be outside
            return Literal(layout.type.dtype, 0, 0)
        slot, flat = self.memory.element(layout, index)
        key = (slot, flat, guard)
        found = self._loads.get(key)
        if found is None:
            depends = self._depends([flat])
            within = self.within(guard) if guard else None
            mask = self.varies(flat) | (within.varies if within is not None else 0)
            found = self._loads[key] = Load(slot.dtype, mask, slot, flat, depends, within)
        return found

    def _depends(self, indices: Iterable[Affine]) -> tuple[Value, ...]:
        """The checked indices that occur in ``indices``."""
        names = dict.fromkeys(name for index in indices for name, _ in index.terms)
        return tuple(self._checked[name] for name in names if name in self._checked)

    def within(self, guard: Guard) -> Within:
        """The condition that all of ``guard`` holds, as a value."""
        found = self._within.get(guard)
        if found is None:
            mask, bounds = 0, []
            for condition in guard:
                mask |= self.varies(condition.index)
                bounds.append(self._bound(condition))
            depends = self._depends(c.index for c in guard)
            found = self._within[guard] = Within(bool_, mask, tuple(bounds), depends)
        return found

    def _bound(self, condition: Condition) -> tuple[Affine, int | None, int | None]:
        low, high = self._range(condition.index)
        offset = whole(condition.index.offset)
        want_low, want_high = whole(condition.low), whole(condition.high)
        return (
            Affine(condition.index.terms),
            None if surely(want_low, low) else want_low - offset,
            None if surely(high + 1, want_high) else want_high - offset,
        )

    def _range(self, index: Affine) -> tuple[int, int]:
        """The least and greatest value of ``index`` over the domain, if it has a point."""
        low = high = whole(index.offset)
        for name, coefficient in index.terms:
            checked = self._checked.get(name)
            extent = checked.extent if checked is not None else self.extents[name]
            reach = whole(coefficient) * (max(extent - 1, 0) if is_fixed(extent) else extent - 1)
            if whole(coefficient) > 0:  # a symbolic one is an extent
                high = high + reach
            else:
                low = low + reach
        return low, high

    def _open(self, conditions: Sequence[Condition]) -> Guard | None:
        """The conditions that can fail; ``None`` when one never holds."""
        kept = []
        for condition in conditions:
            low, high = self._range(condition.index)
            first, end = whole(condition.low), whole(condition.high)
            if surely(high + 1, first) or surely(end, low):
                return None
            if not (surely(first, low) and surely(high + 1, end)):
                kept.append(condition)
        return tuple(kept)

    # One generator a kind: yields the (node, index, guard) it needs, returns the value.

    def _operand(self, layout: Layout, index: Index, guard: Guard) -> Steps:
        return self.load(layout, index, guard)
        yield  # makes this a generator like its siblings

    def _leaf(self, node: Node, index: Index, guard: Guard) -> Steps:
        data = node.attrs.get("value")
        if data is None or data.array.size != 1:
            raise CompileError(f"{node.op.name} {node.type} must be an operand of its group")
        return self._number(node.dtype, data.array.reshape(()).item())
        yield

    def _number(self, dtype: DType, value: bool | int | float) -> Value:
        """A literal, unless it is an extent of the domain or its reciprocal."""
        if dtype.short in ("f32", "f64") and value in self._counts:
            return Count(dtype, 0, int(value), False)
        if dtype.short in ("f32", "f64") and 0.0 < value < 1.0:
            near, one = round(1.0 / value), dtype.numpy.type(1.0)
            if near in self._counts and one / dtype.numpy.type(near) == value:
                return Count(dtype, 0, near, True)
        return Literal(dtype, 0, value)

    def _elementwise(self, node: Node, index: Index, guard: Guard) -> Steps:
        arguments: list[Value] = []
        mask, shape = 0, node.shape
        for operand in node.inputs:
            part = index if operand.shape == shape else _broadcast(index, operand.shape)
            value = yield (operand, part, guard)
            arguments.append(value)
            mask |= value.varies
        dtype = node.inputs[-1].dtype
        if node.dtype is dtype and node.op.scalar == "{0}":
            return arguments[0]
        return Apply(node.dtype, mask, node.op, tuple(arguments), node.attrs, dtype)

    def _generator(self, node: Node, index: Index, guard: Guard) -> Steps:
        arguments: list[Value] = []
        mask = 0
        for piece in self.pieces(node, index):
            if piece.operand == POSITION:
                value = self._position(piece.index[0])
            else:
                value = yield (node.inputs[piece.operand], piece.index, guard)
            arguments.append(value)
            mask |= value.varies
        return Apply(node.dtype, mask, node.op, tuple(arguments), node.attrs, node.dtype)

    def _position(self, at: Affine) -> Value:
        if at.terms:
            return Position(int64, self.varies(at), at, self._depends([at]))
        return Count(int64, 0, whole(at.offset), False)

    def _view(self, node: Node, index: Index, guard: Guard) -> Steps:
        chosen: list[tuple[Guard, Value]] = []
        other: Value | None = None
        for piece in self.pieces(node, index):
            conditions = self._open(piece.conditions)
            if conditions is None:
                continue
            inner = guard + tuple(c for c in conditions if c not in guard)
            value = yield (node.inputs[piece.operand], piece.index, inner)
            if not conditions:
                other = value
                break
            chosen.append((conditions, value))
        if other is None:
            # Pieces of a view without a fill cover it, so the last needs no condition.
            if node.op.fill is None and chosen:
                other = chosen.pop()[1]
            else:
                fill = node.op.fill(node.attrs, node.dtype) if node.op.fill is not None else 0
                other = Literal(node.dtype, 0, fill)
        for conditions, value in reversed(chosen):
            within = self.within(conditions)
            mask = within.varies | value.varies | other.varies
            other = Choose(node.dtype, mask, within, value, other)
        return other

    def _gather(self, node: Node, index: Index, guard: Guard) -> Steps:
        pointer, data = self.pieces(node, index)
        source = node.inputs[data.operand]
        axis = next(k for k, part in enumerate(data.index) if _mentions(part))
        raw = yield (node.inputs[pointer.operand], pointer.index, guard)
        at = self.checked(raw, whole(source.shape[axis]), node, axis)
        value = yield (source, _with_gathered(data.index, at), guard)
        return value

    def checked(self, raw: Value, extent: int, node: Node, axis: int) -> Checked:
        """``raw`` as an index into ``axis`` of ``extent`` elements."""
        code = self.failure(
            f"{node.op.name}: an index is out of range for axis {axis}, "
            f"which has {extent} elements (operands {_types(node)})"
        )
        name = f"@{len(self._checked)}"
        at = Checked(int64, raw.varies, raw, extent, code, name)
        self._checked[name] = at
        self.bits[name] = raw.varies
        return at

    def _reduction(self, node: Node, index: Index, guard: Guard) -> Steps:
        operand = node.inputs[0]
        axes = reduced_axes(node)
        if tuple(operand.shape[a] for a in axes) != tuple(self.extents[n] for n in self.reduced):
            raise CompileError(f"{node.op.name} {operand.type} folds other axes than its group")
        inside, kept = [], iter(index)
        folded = dict(zip(axes, self.variables(self.reduced)))
        for axis in range(len(operand.shape)):
            inside.append(folded[axis] if axis in folded else next(kept))
        value = yield (operand, tuple(inside), guard)
        if any(self.varies(part) & self.reduced_mask for part in index):
            raise CompileError(f"{node.op.name} {operand.type} is used across the axes it folds")
        position = None
        if node.op.reduction is not None and node.op.reduction.position:
            at = folded[axes[0]]
            position = Position(int64, self.varies(at), at)
        # It is known inside the kept loops only, even if its operand varies along none.
        return Fold(node.dtype, self.kept_mask, node.op, value, position)

    def pieces(self, node: Node, index: Index) -> Sequence[Piece]:
        """What the operation's index map says; an error if it has none here."""
        pieces = self._map(node, index)
        if not pieces:
            raise CompileError(
                f"{node.op.name} to {node.type} has no index map; materialise its operand"
            )
        return pieces


_HANDLERS: dict[Kind, Callable[[Evaluator, Node, Index, Guard], Steps]] = {
    Kind.LEAF: Evaluator._leaf,
    Kind.ELEMENTWISE: Evaluator._elementwise,
    Kind.GENERATOR: Evaluator._generator,
    Kind.VIEW: Evaluator._view,
    Kind.GATHER: Evaluator._gather,
    Kind.REDUCTION: Evaluator._reduction,
}


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes a reduction folds, non-negative and sorted."""
    axes = node.attrs.get("axes")
    if axes is None:
        axes = (node.attrs["axis"],)
    rank = len(node.inputs[0].shape)
    return tuple(sorted(a % rank for a in axes)) if rank else ()


def domain_counts(extents: Sequence[int]) -> set[int]:
    """The numbers of points over some of the axes, and those less one (for variances)."""
    products = {1}
    for extent in extents[:MOST_COUNTED]:
        products |= {product * extent for product in products}
    return {n - less for n in products for less in (0, 1) if n - less > SMALL_COUNT}


def gathered(index: Index, at: Checked) -> Index:
    """``index`` with the placeholder for the loaded integer replaced by ``at``."""
    return _with_gathered(index, at)


def _with_gathered(index: Index, at: Checked) -> Index:
    replaced = []
    for part in index:
        if _mentions(part):
            terms = {at.variable if n == GATHERED else n: c for n, c in part.terms}
            part = Affine.of(terms, part.offset)
        replaced.append(part)
    return tuple(replaced)


def _mentions(part: Affine) -> bool:
    return any(name == GATHERED for name, _ in part.terms)


def _broadcast(index: Index, shape: tuple[Any, ...]) -> Index:
    """The index of an operand of ``shape`` under a result index (NumPy's rule)."""
    tail = index[len(index) - len(shape) :]
    return tuple(ZERO if extent == 1 else part for part, extent in zip(tail, shape))


def _types(node: Node) -> str:
    return ", ".join(str(n.type) for n in node.inputs)
