"""Simplification by the laws of algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphflow.ir.graph import Graph
from graphflow.passes.base import Pass
from graphflow.passes.laws import apply_laws
from graphflow.passes.rewrite import rewrite


@dataclass(frozen=True)
class Simplify(Pass):
    """Apply every law of :data:`graphflow.passes.laws.LAWS` until none holds.

    Values change by rounding at most, and only by the laws that say so::

        %1: f32[] = constant(1.0)             %2: f32[8] = neg(%x)
        %2: f32[8] = mul(%x, %1)       →      return %2
        %3: f32[8] = neg(%2)
        return %3
    """

    name: ClassVar[str] = "simplify"

    def run(self, graph: Graph) -> Graph:
        """The graph in normal form."""
        return rewrite(graph, apply_laws, local=True)
