"""``gf.nan_guard()``: the operation that made the first NaN or infinity, and the user's line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow import dispatch
from graphflow.debugging.findings import place_of, result_names, spelled
from graphflow.debugging.setting import Setting, Values
from graphflow.errors import GraphFlowError, NonFiniteError
from graphflow.ir.graph import Location
from graphflow.ir.node import Node
from graphflow.ir.ops.effects import silence
from graphflow.mode import mode
from graphflow.places import user_place
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.cell import Cell
    from graphflow.program import Program

Array = np.ndarray[Any, Any]


class nan_guard:
    """``with gf.nan_guard(): …`` raises :class:`NonFiniteError` where a NaN or infinity arises.

    Eagerly every operation is looked at.  A compiled step is looked at when it is over: if a
    result or a state it wrote is not finite, the state is put back to what it was before the
    step, and the step is interpreted to find the operation.  An operation is to blame if its
    result has a NaN (or an infinity) and none of its operands has.  ``inf=False`` looks for
    NaN only.  The guard is of the thread that enters it.
    """

    def __init__(self, inf: bool = True) -> None:
        self._inf = inf

    def __enter__(self) -> nan_guard:
        if mode.guard is not None:
            raise GraphFlowError("gf.nan_guard() inside gf.nan_guard(): one at a time")
        self._values = before = dispatch._values
        try:
            mode.guard = self
            dispatch._values = self._watched
            mode.note()
        except BaseException:  # Ctrl-C: the block is not entered, so nobody leaves it
            mode.guard, dispatch._values = None, before
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        mode.guard, dispatch._values = None, self._values
        mode.note()

    # ---- eager ---------------------------------------------------------------------

    def _watched(self, op: Any, reference: Any, inputs: Any, attrs: Any) -> Any:
        value = self._values(op, reference, inputs, attrs)
        if mode.guard is not self:  # another thread's work, or a step that is being explained
            return value
        made = value if isinstance(value, tuple) else (value,)
        kind = _arisen([np.asarray(v) for v in made], [t._eager() for t in inputs], self._inf)
        if kind:
            operands = ", ".join(str(t._type_now()) for t in inputs)
            text = f"{op.name}({operands})"
            ranges = _ranges([t._eager() for t in inputs])
            raise _error(f"{text} gave {kind}", "", ranges, user_place(1))
        return value

    # ---- compiled ------------------------------------------------------------------

    def run(
        self,
        program: Program,
        inputs: Sequence[Any],
        bound: Sequence[tuple[int, Tensor]],
    ) -> list[Cell]:
        """:meth:`Program.run`, looked at."""
        held = [cell.value for cell in program.cells]
        for position, tensor in bound:
            held[position] = tensor._eager()
        given = [x if isinstance(x, float) else x._eager() for x in inputs]
        start = Setting(program.graph, given, held, program.scalars, sorted(program._numbers))
        try:
            mode.guard = None
            outputs = program.run(inputs, bound)
            updated = {cell for cell, _ in program.graph.updates}
            states = [a for node, a in zip(program.graph.state, held) if node in updated]
            found = [_kind(a, self._inf) for a in (*(c.value for c in outputs), *states)]
            if not any(found):
                return outputs
            for array, before in zip(held, start.state, strict=True):
                np.copyto(array, before)
            with silence():
                raise self._explained(start, found)
        finally:
            mode.guard = self

    def _explained(self, start: Setting, found: Sequence[str]) -> NonFiniteError:
        graph, values = start.graph, start.values(double=False)
        position, kind = next((i, k) for i, k in enumerate(found) if k)
        updated = {cell: i for i, cell in enumerate(graph.state)}
        order = sorted(graph.updates, key=lambda pair: updated[pair[0]])
        ends = [*graph.outputs, *(value for _, value in order)]
        names = result_names(graph.with_roots(graph.outputs, order))
        what = f"{names[position]} of {graph.name} holds {kind}"
        node = _origin(values, ends[position], kind)
        if node is None:
            text = "the interpreter finds no operation that made it; try gf.verify"
            return _error(what, text, "", None)
        if not node.inputs:
            text = f"it came in by {node.op.name} {node.attrs.get('name', '')}".rstrip()
            return _error(what, text, "", None)
        operands = [np.asarray(values.value(n)) for n in node.inputs if n.op.name != "get"]
        place = place_of(graph, node)
        text = f"first in {spelled(node)}"
        if kind == "NaN" and any(_kind(a, True) for a in operands):
            other = _origin(values, node, "infinity")
            if other is not None and other is not node and other.inputs:
                text += f"\n  an operand is infinite, first in {spelled(other)}"
                text += f" at {place_of(graph, other)}"
        return _error(what, text, _ranges(operands), place)


def _origin(values: Values, end: Node, kind: str) -> Node | None:
    """The first node below ``end`` that has what none of its operands has."""
    seen: set[Node] = set()
    stack = [end]
    while stack:
        node = stack.pop()
        seen.add(node)
        waiting = [n for n in node.inputs if n not in seen and _has(values, n, kind)]
        if waiting:
            stack.append(waiting[0])
        elif _has(values, node, kind):
            return node
    return None


def _has(values: Values, node: Node, kind: str) -> bool:
    value = values.value(node)
    return any(
        _holds(np.asarray(a), kind) for a in (value if isinstance(value, tuple) else (value,))
    )


def _holds(array: Array, kind: str) -> bool:
    """Whether an array has a ``NaN`` or an ``infinity``."""
    if array.dtype.kind in "biuSU":
        return False
    return bool((np.isnan(array) if kind == "NaN" else np.isinf(array)).any())


def _kind(array: Array, inf: bool) -> str:
    """``NaN``, ``infinity`` or nothing."""
    if _holds(array, "NaN"):
        return "NaN"
    return "infinity" if inf and _holds(array, "infinity") else ""


def _arisen(made: Sequence[Array], operands: Sequence[Array], inf: bool) -> str:
    """What the results have and none of the operands has."""
    for array in made:
        kind = _kind(array, inf)
        if kind and not any(_kind(a, kind == "infinity") for a in operands):
            return kind
    return ""


def _ranges(operands: Sequence[Array]) -> str:
    """What the operands hold, a line each."""
    lines = []
    for number, array in enumerate(operands):
        if array.size and array.dtype.kind in "iuf":
            low, high = np.nanmin(array), np.nanmax(array)
            lines.append(f"  operand {number}: from {low:.4g} to {high:.4g}")
    return "\n".join(lines)


def _error(what: str, cause: str, ranges: str, place: Location | None) -> NonFiniteError:
    lines = [what]
    if cause:
        lines.append(f"  {cause}")
    if ranges:
        lines.append(ranges)
    if place is not None:
        lines.append(f"  at {place}")
    made = NonFiniteError("\n".join(lines))
    made.location = place
    return made
