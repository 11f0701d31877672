"""Formulas without gradients that many layers share: a trace writes one out once for equal types.

Over other operands of the same types the nodes are made again, without dispatch and type rules,
as those of gradient rules (:mod:`graphflow.autograd.recipes`) and of optimisers' updates are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from graphflow.autograd.modes import no_grad
from graphflow.cell import Cell
from graphflow.dispatch import TENSORS
from graphflow.ir.build import NODES, input_node
from graphflow.ir.node import Node, value_key
from graphflow.ir.types import TensorType
from graphflow.mode import mode
from graphflow.records import NamedTuple
from graphflow.repeats import made_of, repeat
from graphflow.tensor import Tensor
from graphflow.traced_sizes import as_plain, as_types_do

Formula: TypeAlias = Callable[..., Sequence[Any]]
"""``formula(builder, settings, *operands)``: its results.  No random numbers, no control flow."""

_KEPT = 1024
_known: dict[Any, _Written] = {}


class _Written(NamedTuple):
    """A formula over operands of some types."""

    given: tuple[Node, ...]
    results: tuple[Node, ...]
    body: tuple[Node, ...]
    """What is made on the way, in order."""


def applied(formula: Formula, settings: tuple[Any, ...], *operands: Tensor) -> list[Tensor]:
    """The results of a formula, without history; ``settings`` can be attributes of nodes."""
    tracer = mode.tracer
    if tracer is not None and tracer.region is None:
        nodes = [tracer.node(t) for t in operands]
        if all(node.tensor_type.is_static for node in nodes):
            found = _written(
                formula, as_plain(settings), tuple([node.tensor_type for node in nodes])
            )
            made = dict(zip(found.given, nodes))
            repeat(tracer, found.body, made)
            return [Tensor._of(Cell(made[result], tracer)) for result in found.results]
    with no_grad(), as_types_do:
        return [*formula(TENSORS, settings, *(t.detach() for t in operands))]


def _written(
    formula: Formula, settings: tuple[Any, ...], types: tuple[TensorType, ...]
) -> _Written:
    key = formula, value_key(settings), types
    found = _known.get(key)
    if found is None:
        if len(_known) >= _KEPT:
            _known.clear()
        given = tuple(input_node(f"x{i}", type) for i, type in enumerate(types))
        results = tuple(formula(NODES, settings, *given))
        found = _known[key] = _Written(given, results, made_of(given, results))
    return found
