"""The first pass after which a graph computes something else, and which of its rules did it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphflow.debugging.differences import LAWFUL, difference
from graphflow.debugging.findings import (
    Compared,
    Finding,
    place_of,
    replacement_text,
    result_names,
    spelled,
)
from graphflow.debugging.setting import Setting, Values
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.passes.pipeline import Stage, Step, run_pipeline
from graphflow.passes.rewrite import Firing, watchers


class PassCheck:
    """Runs the passes on the graph of a setting, and interprets what each leaves in double.

    Results are matched with those of the traced graph; nodes that a pass left alone are
    the same objects and are computed once.
    """

    def __init__(self, setting: Setting, steps: Sequence[Step]) -> None:
        self.values = setting.values(double=True)
        self.compared: list[Compared] = []
        self.finding: Finding | None = None
        self._fired: list[Firing] = []
        firings: list[list[Firing]] = []

        def collect(stage: Stage, step: Step | None) -> None:
            firings.append(self._fired.copy())
            self._fired.clear()

        watchers.append(self._fired.append)
        try:
            self.stages = run_pipeline(setting.graph, steps, collect)
        finally:
            watchers.pop()
        self._names = result_names(setting.graph)
        self._compare(firings)

    def _compare(self, firings: Sequence[Sequence[Firing]]) -> None:
        traced = self.stages[0].graph
        for number, stage in enumerate(self.stages[1:], 1):
            before = self.stages[number - 1].graph
            if stage.graph is before:
                continue
            gaps = self._gaps(traced, stage.graph)
            worst = int(np.argmax(gaps)) if gaps else 0
            gap = gaps[worst] if gaps else 0.0
            where = self._names[worst] if gaps else ""
            self.compared.append(Compared(f"after {stage.name}", where, gap, LAWFUL))
            if gap > LAWFUL:
                self.finding = self._rule(stage, before, firings[number]) or self._node(
                    stage, before, _ends(stage.graph)[worst], gap
                )
                return

    def _gaps(self, traced: Graph, graph: Graph) -> list[float]:
        """The difference of every result; state that is no longer updated keeps its value."""
        updated = dict(graph.updates)
        found = [
            *graph.outputs,
            *(updated.get(cell, cell) for cell, _ in traced.updates),
        ]
        return [
            difference(self.values.value(a), self.values.value(b))
            for a, b in zip(_ends(traced), found, strict=True)
        ]

    def _rule(self, stage: Stage, before: Graph, fired: Sequence[Firing]) -> Finding | None:
        """The first replacement that is not equal to what it replaced."""
        for each in fired:
            expected = self.values.tensor(each.node)
            found = self.values.tensor(each.replacement)
            if expected is None or found is None:
                continue
            gap = difference(expected, found)
            if gap > LAWFUL:
                place = each.location or place_of(before, each.node)
                text = replacement_text(each.node, each.replacement)
                return Finding(stage.name, each.rule, spelled(each.node), text, place, gap)
        return None

    def _node(self, stage: Stage, before: Graph, end: Node, gap: float) -> Finding:
        """The first node on the way to a wrong result that computes nothing known before."""
        known = _Known(self.values, before)
        node = end
        while True:
            strange = [n for n in node.inputs if not known.computes(n)]
            if not strange:
                break
            node = strange[0]
        return Finding(stage.name, "", spelled(node), "", place_of(stage.graph, node), gap)


class _Known:
    """The values of a graph's nodes, by type."""

    def __init__(self, values: Values, graph: Graph) -> None:
        self._values, self._nodes = values, set(graph.nodes)
        self._by_type: dict[str, list[Node]] = {}
        for node in graph.nodes:
            self._by_type.setdefault(str(node.type), []).append(node)

    def computes(self, node: Node) -> bool:
        """Whether some node of the graph has the value of ``node``."""
        if node in self._nodes:
            return True
        found = self._values.tensor(node)
        if found is None:
            return False
        rows = (self._values.tensor(n) for n in self._by_type.get(str(node.type), ()))
        return any(row is not None and difference(row, found) <= LAWFUL for row in rows)


def _ends(graph: Graph) -> list[Node]:
    return [*graph.outputs, *(value for _, value in graph.updates)]
