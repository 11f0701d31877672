"""Rebuild a graph bottom-up through a rule, without recursion.

A rule looks at one node whose operands are already in normal form and returns
a replacement of the same type, or ``None``.  Replacements are rewritten in
turn, so that a graph comes out in normal form after one walk.  Locations and
names of replaced nodes go over to what replaces them.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from graphflow.errors import GraphError
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Form, Node, make_node, with_inputs
from graphflow.ir.op import Kind
from graphflow.records import dataclass

Rule: TypeAlias = Callable[[Node], Node | None]

hits: Counter[str] = Counter()
"""How often each rule fired in this process (``GRAPHFLOW_DEBUG=5`` prints it)."""


@dataclass(frozen=True, slots=True)
class Firing:
    """One replacement: the rule's name as :data:`hits` counts it, and the user's line."""

    rule: str
    node: Node
    replacement: Node
    location: Location | None


watchers: list[Callable[[Firing], None]] = []
"""Told of every replacement while it holds any (``gf.verify`` looks on)."""


settled: weakref.WeakValueDictionary[Rule, Graph] = weakref.WeakValueDictionary()
"""The last graph that a local rule left behind: it fires nowhere there."""


def rewrite(
    graph: Graph,
    rule: Rule,
    into_regions: bool = True,
    local: bool = False,
    only: Callable[[Form], bool] | None = None,
) -> Graph:
    """``graph`` with ``rule`` applied until it fires nowhere, in its regions neither.

    A rule is ``local`` if what it does depends on the node alone, and what is below it.  Then
    the nodes that it left behind the last time need no second look.  It fires on ``only`` some
    forms of nodes: there is nothing to do for a graph without them and without regions.
    """
    if only is not None and not (graph.has_control or any(map(only, graph.forms))):
        return graph
    local = local and into_regions and not watchers
    before = settled.get(rule) if local else None
    if before is graph:
        return graph
    rewriter = Rewriter(graph, rule, into_regions)
    if before is not None:
        rewriter.leave(before.nodes)
    rewriter.normalise(graph.nodes)
    result = rewriter.finish()
    if local:
        settled[rule] = result
    return result


class Rewriter:
    """One walk over one graph: which node became which, and where they come from.

    Rules that never come to an end (one undoing another) are reported after
    ``32 * nodes + 1000`` steps.
    """

    def __init__(self, graph: Graph, rule: Rule, into_regions: bool = True) -> None:
        self.graph, self.into_regions = graph, into_regions
        self._given = rule
        self.rule = self._watched if watchers else rule
        self.final: dict[Node, Node] = {}
        self.locations = dict(graph.locations)
        self.names = dict(graph.names)
        self._forward: dict[Node, Node] = {}
        # A rule may bring hundreds of nodes along; one that never ends takes a second to find.
        self._budget = 32 * len(graph.nodes) + 20_000

    def leave(self, nodes: Sequence[Node]) -> None:
        """Take ``nodes`` (all that they read among them) for final as they are."""
        self.final.update(zip(nodes, nodes))

    def normalise(self, nodes: Iterable[Node]) -> None:
        """Find the final form of ``nodes`` (given with their operands before them)."""
        final, rule = self.final, self.rule
        for node in nodes:
            if node in final:
                continue
            changed = False
            for operand in node.inputs:
                if final[operand] is not operand:
                    changed = True
                    break
            rebuilt = self._rebuild(node) if changed else node
            if changed and rebuilt in final:
                final[node] = final[rebuilt]
                continue
            if node.op.kind is Kind.CONTROL:
                rebuilt = self._with_regions(rebuilt)
            replacement = rule(rebuilt)
            if replacement is None or replacement is rebuilt:
                final[node] = final[rebuilt] = rebuilt
            else:
                self._replace(node, rebuilt, replacement)

    def _watched(self, node: Node) -> Node | None:
        """The rule, telling the watchers of what it does."""
        before = Counter(hits)
        made = self._given(node)
        if made is not None and made is not node:
            name = ", ".join(hits - before) or getattr(self._given, "__qualname__", "a rule")
            for watch in watchers:
                watch(Firing(name, node, made, self.locations.get(node)))
        return made

    def _rebuild(self, node: Node) -> Node:
        """``node`` on the final forms of its operands, which have the same types."""
        final = self.final
        rebuilt = with_inputs(node, [final[n] for n in node.inputs])
        self._carry(node, rebuilt)
        return rebuilt

    def _with_regions(self, node: Node) -> Node:
        """``node`` with its regions rewritten too."""
        if not self.into_regions:
            return node
        attrs = {
            name: rewrite(value, self._given) if isinstance(value, Graph) else value
            for name, value in node.attrs.items()
        }
        if all(attrs[name] is value for name, value in node.attrs.items()):
            return node
        rebuilt = make_node(node.op, node.inputs, attrs, node.type)
        self._carry(node, rebuilt)
        return rebuilt

    def _replace(self, node: Node, rebuilt: Node, replacement: Node) -> None:
        """Bring ``replacement`` and the nodes it brought along into final form."""
        final = self.final
        self._check(rebuilt, replacement)
        self._forward[rebuilt] = replacement
        stack = [rebuilt]
        while stack:
            top = stack[-1]
            self._budget -= 1
            if self._budget < 0:
                raise GraphError(
                    f"rewriting does not come to an end at {top!r} (which became "
                    f"{self._forward.get(top)!r}): one rule undoes another"
                )
            if top in final:
                stack.pop()
                continue
            target = self._forward.get(top)
            if target is None:
                waiting = [n for n in top.inputs if n not in final]
                if waiting:
                    self._settle(top, waiting, stack)
                    continue
                target = self._step(top)
                if target is top:
                    final[top] = top
                    stack.pop()
                    continue
                self._forward[top] = target
            self._carry(top, target)
            if target in final:
                final[top] = final[target]
                stack.pop()
            else:
                stack.append(target)
        final[node] = final[rebuilt]

    def _settle(self, top: Node, waiting: list[Node], stack: list[Node]) -> None:
        """Put operands that a replacement brought along on the stack."""
        place = self.locations.get(top)
        for operand in waiting:
            if place is not None and operand.inputs:
                self.locations.setdefault(operand, place)
        stack.extend(waiting)

    def _step(self, node: Node) -> Node:
        """One rewriting of ``node``, whose operands are final: rebuilt, replaced or itself."""
        final = self.final
        if any(final[n] is not n for n in node.inputs):
            return self._rebuild(node)
        if node.op.kind is Kind.CONTROL:
            node = self._with_regions(node)
        replacement = self.rule(node)
        if replacement is None or replacement is node:
            return node
        self._check(node, replacement)
        return replacement

    def _check(self, node: Node, replacement: Node) -> None:
        if replacement.type != node.type:
            raise GraphError(f"a rule replaced {node!r} by {replacement!r}, which has another type")

    def _carry(self, node: Node, replacement: Node) -> None:
        """Give the place and the name of ``node`` to what replaces it, if it has none."""
        if not replacement.inputs:
            return
        place = self.locations.get(node)
        if place is not None:
            self.locations.setdefault(replacement, place)
        name = self.names.get(node)
        if name is not None:
            self.names.setdefault(replacement, name)

    def finish(self) -> Graph:
        """The graph over the final forms; the same object if nothing changed."""
        graph, final = self.graph, self.final
        if all(final[n] is n for n in graph.roots):
            return graph
        outputs = [final[n] for n in graph.outputs]
        updates = [(s, final[v]) for s, v in graph.updates]
        return graph.with_roots(outputs, updates).with_own(self.locations, self.names)
