"""Products of halves by way of float32, for processors that multiply no halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphflow.ir.build import emit
from graphflow.ir.graph import Graph
from graphflow.ir.node import Form, Node
from graphflow.ir.op import Kind
from graphflow.ir.types import TensorType, bfloat16, float16, float32
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import hits, rewrite


@dataclass(frozen=True)
class Widen(Pass):
    """Multiply float16 and bfloat16 operands as float32, and round the sums once, at the end.

    That is what a product of halves means (its reference adds in float32), and the tiles of
    float32 are there; operands stay halves in memory::

        %0: bf16[8,4] = matmul(%x, %w)    →    %0: f32[8,16] = cast(%x, dtype=f32)
                                               %1: f32[16,4] = cast(%w, dtype=f32)
                                               %2: f32[8,4] = matmul(%0, %1)
                                               %3: bf16[8,4] = cast(%2, dtype=bf16)
    """

    name: ClassVar[str] = "widen"

    def run(self, graph: Graph) -> Graph:
        """The graph with every contraction of halves in float32, in its regions too."""
        return rewrite(graph, _widened, only=_is_product_of_halves)


def _is_product_of_halves(form: Form) -> bool:
    if form.op.kind is not Kind.CONTRACTION:
        return False
    return isinstance(form.type, TensorType) and form.type.dtype in (float16, bfloat16)


def _widened(node: Node) -> Node | None:
    if not _is_product_of_halves(node.form):
        return None
    hits["widen"] += 1
    wide = [emit("cast", operand, dtype=float32) for operand in node.inputs]
    return emit("cast", emit(node.op, *wide, **dict(node.attrs)), dtype=node.dtype)
