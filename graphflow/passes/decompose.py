"""Operations replaced by what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

from graphflow.ir.build import NODES
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Application
from graphflow.ir.pattern import fit
from graphflow.ir.types import TupleType
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import hits, rewrite


@dataclass(frozen=True)
class Decompose(Pass):
    """Replace every operation whose record has a ``decompose`` rule by its parts.

    The rule has the form of a gradient rule, ``lambda b, n: …``, where ``n`` has
    ``inputs`` and ``attrs``; it is for operations that are worth a gradient rule
    of their own but no kernel.  ``keep`` names operations to leave alone; ``stays`` says of
    an operation that a library may compute as a whole whether one does::

        %0: f32[8] = square(%x)        →      %0: f32[8] = mul(%x, %x)
        return %0                             return %0
    """

    keep: frozenset[str] = frozenset()
    stays: Callable[[Node], bool] | None = None
    name: ClassVar[str] = "decompose"

    def run(self, graph: Graph) -> Graph:
        """The graph over operations without a rule, and those in ``keep``."""
        return rewrite(graph, self._decompose, only=attrgetter("op.decompose"))

    def _decompose(self, node: Node) -> Node | None:
        if isinstance(node.type, TupleType):
            return None  # its results are replaced, one by one
        whole = node.inputs[0] if node.inputs else node
        several = isinstance(whole.type, TupleType)
        if not several:
            whole = node
        rule = whole.op.decompose
        if rule is None or self._is_left(whole):
            return None
        hits[f"decompose {whole.op.name}"] += 1
        made = rule(NODES, Application(whole.inputs, None, whole.attrs))
        return fit(made[node.attrs["index"]] if several else made, node.tensor_type)

    def _is_left(self, node: Node) -> bool:
        if node.op.name in self.keep:
            return True
        return self.stays is not None and bool(node.op.routine) and self.stays(node)
