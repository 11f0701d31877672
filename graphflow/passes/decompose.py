"""Operations replaced by what they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

from graphflow.ir.build import NODES
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Application
from graphflow.ir.pattern import fit
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import hits, rewrite


@dataclass(frozen=True)
class Decompose(Pass):
    """Replace every operation whose record has a ``decompose`` rule by its parts.

    The rule has the form of a gradient rule, ``lambda b, n: …``, where ``n`` has
    ``inputs`` and ``attrs``; it is for operations that are worth a gradient rule
    of their own but no kernel.  ``keep`` names operations to leave alone::

        %0: f32[8] = square(%x)        →      %0: f32[8] = mul(%x, %x)
        return %0                             return %0
    """

    keep: frozenset[str] = frozenset()
    name: ClassVar[str] = "decompose"

    def run(self, graph: Graph) -> Graph:
        """The graph over operations without a rule, and those in ``keep``."""
        return rewrite(graph, self._decompose, only=attrgetter("op.decompose"))

    def _decompose(self, node: Node) -> Node | None:
        rule = node.op.decompose
        if rule is None or node.op.name in self.keep:
            return None
        hits[f"decompose {node.op.name}"] += 1
        made: Node = rule(NODES, Application(node.inputs, None, node.attrs))
        return fit(made, node.tensor_type)
