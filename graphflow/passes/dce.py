"""Dead code: state that is neither read nor changed, results nobody takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphflow.ir.graph import Graph
from graphflow.ir.node import topological
from graphflow.passes.base import Pass
from graphflow.passes.dead_results import trim
from graphflow.records import replace


@dataclass(frozen=True)
class Dce(Pass):
    """Drop updates that write back a state's own value, and state nothing uses.

    Nodes that no result depends on are no part of a graph to begin with.
    Inputs stay, used or not: they are the signature::

        %w: f32[8] = state(name="w")
        %v: f32[8] = state(name="v")                %v: f32[8] = state(name="v")
        return %v                            →      return %v
        update %v = %v
    """

    name: ClassVar[str] = "dce"

    def run(self, graph: Graph) -> Graph:
        """The graph without idle state and dead results of regions."""
        graph = trim(graph)
        updates = tuple((cell, value) for cell, value in graph.updates if cell is not value)
        used = set(topological([*graph.outputs, *(value for _, value in updates)]))
        used.update(cell for cell, _ in updates)
        state = tuple(cell for cell in graph.state if cell in used)
        if len(state) == len(graph.state) and len(updates) == len(graph.updates):
            return graph
        used.update(graph.inputs)
        return replace(
            graph,
            state=state,
            updates=updates,
            locations={n: p for n, p in graph.locations.items() if n in used},
            names={n: s for n, s in graph.names.items() if n in used},
        )
