"""Units lowered once: equal bodies over equal layouts make the same calls over other buffers.

A deep model has the same groups in every layer.  The calls of the first of them are
kept as a template; for the others its temporaries are made anew, and its buffers renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphflow.codegen.buffers import BufferTable
from graphflow.codegen.layout import Layout
from graphflow.codegen.schedule import (
    Address,
    Argument,
    BlockAddress,
    BufferKind,
    Call,
    Provenance,
)
from graphflow.codegen.sharing import Ways
from graphflow.codegen.units import Unit
from graphflow.ir.types import TensorType
from graphflow.records import dataclass, replace

_TEMPORARY = (BufferKind.ARENA, BufferKind.OWN)


@dataclass(frozen=True, slots=True)
class Template:
    """The ``calls`` of a unit over the buffers ``places`` (of operands, then of results),
    and the types of their ``temporaries``, by buffer."""

    calls: tuple[Call, ...]
    places: tuple[int, ...]
    temporaries: Mapping[int, TensorType]


class Templates:
    """The templates of one schedule."""

    def __init__(self, table: BufferTable) -> None:
        self.table = table
        self._known: dict[Any, Template] = {}

    def calls(
        self,
        unit: Unit,
        operands: Sequence[Layout],
        results: Sequence[Layout],
        position: int,
        lower: Callable[[], Sequence[Call]],
    ) -> Sequence[Call]:
        """What ``lower()`` makes of ``unit``, node ``position``, over these layouts: by a template
        if there is one."""
        table, layouts = self.table, (*operands, *results)
        places = tuple(dict.fromkeys(layout.buffer for layout in layouts))
        key = self._key(unit, layouts, places)
        template = self._known.get(key)
        if template is not None:
            return self._filled(template, places, unit, position)
        start = len(table.buffers)
        calls = tuple(lower())
        fresh = table.buffers[start:]
        temporaries = {b.id: b.type for b in fresh if b.kind in _TEMPORARY}
        self._known[key] = Template(calls, places, temporaries)
        return [replace(call, provenance=_placed(call, unit, position)) for call in calls]

    def _key(self, unit: Unit, layouts: Sequence[Layout], places: Sequence[int]) -> Any:
        """All that lowering depends on.  Nodes are interned: equal bodies have the same ones."""
        number = {buffer: i for i, buffer in enumerate(places)}
        lie = tuple((number[x.buffer], x.type, x.offset, x.strides) for x in layouts)
        types = tuple(
            (self.table.buffers[buffer].type, self.table.is_aligned(buffer)) for buffer in places
        )
        body = unit.body.inputs, unit.body.outputs
        return unit.kind, unit.fallible, *body, lie, types, self.table.own

    def _filled(
        self, template: Template, places: Sequence[int], unit: Unit, position: int
    ) -> list[Call]:
        """The calls of ``template`` over ``places`` and temporaries of their own."""
        table = self.table
        new = dict(zip(template.places, places, strict=True))
        for old, type in template.temporaries.items():
            new[old] = table.buffer(BufferKind.ARENA, type)
        new.setdefault(table.error, table.error)
        return [
            replace(
                call,
                arguments=renamed(call.arguments, new),
                reads=frozenset(new[buffer] for buffer in call.reads),
                writes=frozenset(new[buffer] for buffer in call.writes),
                partition={new[buffer]: rows for buffer, rows in call.partition.items()},
                ways=_renamed_ways(call.ways, new),
                provenance=_placed(call, unit, position),
            )
            for call in template.calls
        ]


def _placed(call: Call, unit: Unit, position: int) -> Provenance:
    return Provenance(call.provenance.ir, unit.locations, position)


def _renamed_ways(ways: Ways | None, new: Mapping[int, int]) -> Ways | None:
    if ways is None:
        return None
    return replace(ways, own={new[buffer]: rows for buffer, rows in ways.own.items()})


def renamed(arguments: Sequence[Argument], new: Mapping[int, int]) -> tuple[Argument, ...]:
    """``arguments`` with ``new[b]`` in place of every buffer ``b``."""
    found: list[Argument] = []
    for argument in arguments:
        if isinstance(argument, Address):
            argument = Address(new[argument.buffer], argument.offset)
        elif isinstance(argument, BlockAddress):
            argument = BlockAddress(renamed(argument.arguments, new))
        found.append(argument)
    return tuple(found)
