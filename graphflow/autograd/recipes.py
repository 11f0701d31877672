"""What a gradient rule makes, and of which values: found once for all equal applications.

Rules look at types and attributes, never at values, so over other operands of the same types a
rule makes the same nodes.  A deep model has hundreds of operations of a few kinds; in a trace the
rule of the first is applied to stand-ins, and what came of it is repeated over the operands of
each, without dispatch and type rules: a third of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphflow.cell import Cell
from graphflow.errors import GraphFlowError
from graphflow.ir.build import NODES, emit, input_node
from graphflow.ir.cotangent import carries_gradient, operand_cotangent
from graphflow.ir.node import Node, attrs_key, topological
from graphflow.ir.op import Application, OpDef
from graphflow.ir.types import TensorType, TupleType, Type
from graphflow.records import dataclass
from graphflow.repeats import repeat
from graphflow.tensor import Tensor
from graphflow.traced_sizes import as_plain

if TYPE_CHECKING:
    from graphflow.trace import Tracer

_KEPT = 4096
"""Recipes that are remembered."""
_known: dict[Any, Recipe] = {}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the rule of one operation makes of operands, results and cotangents of some types."""

    given: tuple[Node | None, ...]
    """Stand-ins for operands, then results, then cotangents (None for what has none)."""
    results: tuple[Node | None, ...]
    """The cotangents of the operands that want one."""
    body: tuple[Node, ...]
    """What is made on the way, in order."""
    reads: frozenset[int]
    """Which of ``given`` are read: their values, not shapes and dtypes alone."""
    repeats: bool
    """Whether ``body`` may be made again: no random numbers, no bodies of control flow."""


def recipe(
    op: OpDef, types: tuple[Type, ...], attrs: Mapping[str, Any], wants: tuple[bool, ...]
) -> Recipe:
    """The recipe for operands of these types; ``wants``: which of them want a cotangent."""
    key = (op, types, attrs_key(attrs), wants)
    found = _known.get(key)
    if found is None:
        if len(_known) >= _KEPT:
            _known.clear()
        found = _known[key] = _written(op, types, attrs, wants)
    return found


def _written(
    op: OpDef, types: Sequence[Any], attrs: Mapping[str, Any], wants: Sequence[bool]
) -> Recipe:
    leaves = tuple(_stand_in(f"x{i}", type) for i, type in enumerate(types))
    type = emit(op, *leaves, **attrs).type
    several = isinstance(type, TupleType)
    made: Sequence[Any] = type.items if isinstance(type, TupleType) else (type,)
    outs = tuple(_stand_in(f"out{i}", item) for i, item in enumerate(made))
    cts = tuple(
        _stand_in(f"ct{i}", item) if carries_gradient(outs[i]) else None
        for i, item in enumerate(made)
    )
    application = Application(leaves, outs if several else outs[0], attrs)
    ct = cts if several else cts[0]
    results = tuple(
        operand_cotangent(NODES, op, application, ct, i) if want else None
        for i, want in enumerate(wants)
    )
    given = (*leaves, *outs, *cts)
    read = set(topological([r for r in results if r is not None]))
    body = sorted(read.difference(given), key=lambda node: node.serial)
    return Recipe(
        given,
        results,
        tuple(body),
        frozenset(i for i, node in enumerate(given) if node in read),
        all(n.form.attrs is not None and n.op.pure for n in body),
    )


_stand_in = lru_cache(maxsize=_KEPT)(input_node)


def values_read(
    op: OpDef, inputs: Sequence[Tensor], attrs: Mapping[str, Any], wanted: Sequence[object]
) -> frozenset[int]:
    """Positions of the operands, and after them of the results, whose *values* are read.

    ``wanted`` has None for operands without a gradient; all results are taken to have cotangents.
    """
    types = tuple(t._type for t in inputs)
    return recipe(op, types, attrs, tuple(edge is not None for edge in wanted)).reads


def repeated(
    tracer: Tracer, op: OpDef, application: Application, ct: Tensor, wants: tuple[bool, ...]
) -> list[Tensor | None] | None:
    """The cotangents of the operands in a trace, by the recipe; None if there can be none."""
    if tracer.region is not None or tracer.explicit:
        return None
    tensors = (*application.inputs, application.out, ct)
    if any(t._cell.tracer is not tracer and t._cell not in tracer.shadows for t in tensors):
        return None  # what the rule does not read is not to be captured
    nodes = [tracer.node(t) for t in tensors]
    types = tuple([node.type for node in nodes])
    if not all(type.__class__ is TensorType and type.is_static for type in types):
        return None
    attrs = {name: as_plain(value) for name, value in application.attrs.items()}
    try:
        found = recipe(op, types[:-2], attrs, wants)
    except GraphFlowError:
        return None  # the rule itself says it, with the user's place
    if not found.repeats or types[-2:] != tuple(n.type for n in found.given[-2:] if n is not None):
        return None
    made = {stand_in: node for stand_in, node in zip(found.given, nodes) if stand_in is not None}
    repeat(tracer, found.body, made)
    same: dict[Node | None, Tensor] = dict(zip(found.given, tensors))
    return [
        None if r is None else same[r] if r in same else Tensor._of(Cell(made[r], tracer))
        for r in found.results
    ]
