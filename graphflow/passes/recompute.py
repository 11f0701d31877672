"""What a group computes anew rather than reads: cheap arithmetic on what lies in memory anyway.

Grouping decides where each value is computed first.  A value that another group
reads must be stored by its own group, and kept from there to there: from the forward
pass to the backward pass, often.  Where a few operations make it of values that are
kept for that reader too, the reader does better to compute it again::

    kernel 1: t = tanh(u), h = 1 + t, y = 0.5 * u * h        stores t, h, y
    kernel 2: dy * 0.5 * h + …(t, u)                          reads  t, h, u

``h`` is one addition of ``t``: kernel 2 computes it, kernel 1 no longer stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphflow.ir.node import Node
from graphflow.passes.dataflow import Dataflow, Edge, Role, choice_of_axes, view_pieces
from graphflow.passes.groups import Group, Limits, copies_of
from graphflow.passes.spaces import assign_spaces, reads_at_own_index
from graphflow.records import replace

MOST_COST = 24.0
"""Scalar instructions that are worth a value not written and read again."""
SLACK = 16
"""What else has to be kept may add a part of this many of the value's bytes (a mean a row)."""


def computed_anew(flow: Dataflow, groups: Sequence[Group], limits: Limits) -> list[Group]:
    """``groups`` with what each computes anew, in the same order.

    Every work node keeps its own group; the others that compute it have it among
    their ``again``.  A group none of whose values is stored any more stays in the list.
    """
    search = _Search(flow, groups, limits)
    for number in reversed(range(len(flow.work))):
        search.consider(number)
    return search.result()


class _Search:
    """Which groups read what, while values cease to be stored."""

    def __init__(self, flow: Dataflow, groups: Sequence[Group], limits: Limits) -> None:
        self.flow, self.groups, self.limits = flow, groups, limits
        self.members = [{flow.number[n] for n in group.nodes} for group in groups]
        self.home = {n: place for place, found in enumerate(self.members) for n in found}
        self.again: list[set[int]] = [set() for _ in groups]
        # The groups that read a work node of another group.
        self.readers: list[set[int]] = [
            {self.home[u] for u in users if self.home[u] != self.home[number]}
            for number, users in enumerate(flow.users)
        ]

    def consider(self, number: int) -> None:
        """Store ``number`` no more, if every group that reads it had better compute it."""
        flow = self.flow
        readers = self.readers[number]
        if not readers or flow.escapes[number]:
            return
        if flow.role[flow.work[number]] is not Role.ELEMENTWISE:
            return
        found: dict[int, tuple[set[int], set[int]]] = {}
        for reader in readers:
            made = self._made_in(number, reader)
            if made is None:
                return
            found[reader] = made
        if not self._pays(number, found):
            return
        for reader, (nodes, reads) in found.items():
            self.again[reader] |= nodes
            for read in reads:
                if self.home[read] != reader:
                    self.readers[read].add(reader)
        self.readers[number] = set()

    # -- one reader -----------------------------------------------------------------------

    def _made_in(self, number: int, reader: int) -> tuple[set[int], set[int]] | None:
        """The nodes that group ``reader`` would compute for ``number``, and the work nodes
        that they read; ``None`` if it cannot or should not."""
        group = self.groups[reader]
        if any(self.flow.part[n] != self.flow.part[number] for n in self.members[reader]):
            return None
        if group.kind == "single" or not self._reads_plainly(number, reader):
            return None
        found = self._recipe(number, reader)
        if found is None:
            return None
        nodes, _ = found
        held = self.members[reader] | self.again[reader]
        if len(held | nodes) > self.limits.operations:
            return None
        if len(self._operands(held | nodes)) > self.limits.operands:
            return None
        return found if self._fits(nodes, held, group) else None

    def _reads_plainly(self, number: int, reader: int) -> bool:
        """Whether all that read ``number`` there do so as it is, element by element."""
        flow, node = self.flow, self.flow.work[number]
        for user in (self.members[reader] | self.again[reader]).intersection(flow.users[number]):
            role = flow.role[flow.work[user]]
            if role not in (Role.ELEMENTWISE, Role.REDUCTION):
                return False
            for edge in flow.edges[user]:
                if edge.source == number and edge.operand is not node:
                    return False
            shape = edge.operand.shape if role is Role.REDUCTION else flow.work[user].shape
            if shape != node.shape:
                return False
        return True

    def _recipe(self, number: int, reader: int) -> tuple[set[int], set[int]] | None:
        """How to make ``number`` of stored values with little work."""
        flow, shape = self.flow, self.flow.work[number].shape
        held = self.members[reader] | self.again[reader]
        nodes, reads, cost = {number}, set(), 0.0
        stack = [number]
        while stack:
            top = stack.pop()
            cost += flow.work[top].op.cost
            if cost > MOST_COST:
                return None
            for edge in flow.edges[top]:
                source = edge.source
                if not _in_order(flow, edge):
                    return None
                if source < 0 or source in nodes:
                    continue
                if source in held or self._is_stored(source):
                    reads.add(source)
                    continue
                node = flow.work[source]
                elsewhere = flow.part[source] != flow.part[number]
                if elsewhere or flow.role[node] is not Role.ELEMENTWISE or node.shape != shape:
                    return None
                if edge.operand is not node:
                    return None
                dear = cost + node.op.cost > MOST_COST
                if _widens(flow.work[top], node) or (dear and self._replaces_several(source)):
                    reads.add(source)  # stored instead of what is made of it
                    continue
                nodes.add(source)
                stack.append(source)
        return nodes, reads

    def _replaces_several(self, number: int) -> bool:
        """Whether several values that are stored now are cheap to make of ``number``."""
        flow, home = self.flow, self.home[number]
        shape = flow.work[number].shape
        found, seen, stack = 0, {number}, [number]
        while stack:
            for user in flow.users[stack.pop()]:
                node = flow.work[user]
                if user in seen or self.home[user] != home or node.op.cost > MOST_COST:
                    continue
                seen.add(user)
                if flow.role[node] is not Role.ELEMENTWISE or node.shape != shape:
                    continue
                if self._is_stored(user):
                    found += not flow.escapes[user]
                else:
                    stack.append(user)
        return found > 1

    def _is_stored(self, number: int) -> bool:
        return self.flow.escapes[number] or bool(self.readers[number])

    def _operands(self, numbers: Iterable[int]) -> set[Node]:
        """What these nodes read that is none of them."""
        inside = set(numbers)
        edges = (edge for n in inside for edge in self.flow.edges[n])
        return {edge.operand for edge in edges if edge.source not in inside}

    def _fits(self, nodes: set[int], held: set[int], group: Group) -> bool:
        """Whether the group can hold these nodes too."""
        flow = self.flow
        if group.reduced:
            members = sorted(held | nodes)
            return assign_spaces(flow, members, group.domain, group.reduced) is not None
        inside = held | nodes
        return all(
            flow.role[flow.work[edge.source]] is not Role.CONTRACTION
            and reads_at_own_index(flow, number, edge)
            for number in nodes
            for edge in flow.edges[number]
            if edge.source in inside
        )

    # -- all readers ----------------------------------------------------------------------

    def _pays(self, number: int, found: dict[int, tuple[set[int], set[int]]]) -> bool:
        """Whether not many more bytes are kept for longer than were before."""
        node, extra = self.flow.work[number], 0
        until: dict[int, int] = {}
        for reader, (_, reads) in found.items():
            for read in reads - self.members[reader]:
                until[read] = max(reader, until.get(read, -1))
        for read, place in until.items():
            if self.flow.escapes[read] or max(self.readers[read], default=-1) >= place:
                continue
            more = _bytes_beside(self.flow.work[read], node)
            if more is None:
                return False
            extra += more
        own = _bytes_beside(node, node)
        return own is not None and SLACK * extra <= (SLACK + 1) * own

    def result(self) -> list[Group]:
        """The groups with what they compute anew."""
        return [
            self._with(group, again) if again else group
            for group, again in zip(self.groups, self.again, strict=True)
        ]

    def _with(self, group: Group, again: set[int]) -> Group:
        work = self.flow.work
        numbers = sorted({self.flow.number[n] for n in group.nodes} | again)
        return replace(
            group,
            nodes=tuple(work[n] for n in numbers),
            copies=copies_of(self.flow, numbers),
            again=frozenset(work[n] for n in again),
        )


def _widens(node: Node, operand: Node) -> bool:
    """Whether ``node`` is made of ``operand`` alone, of integers of fewer bytes."""
    if len(node.inputs) > 1 or operand.dtype.kind not in ("int", "uint"):
        return False
    return operand.dtype.itemsize < node.dtype.itemsize


def _in_order(flow: Dataflow, edge: Edge) -> bool:
    """Whether an operand's axes run as they lie in memory, split, joined or repeated perhaps."""
    view, base = edge.operand, flow.base(edge.operand)
    while view is not base:
        axes = choice_of_axes(view, view_pieces(view))
        if axes is not None:
            real = [axis for axis in axes if axis >= 0]
            if real != sorted(real):
                return False
        elif view.tensor_type.numel != view.inputs[0].tensor_type.numel:
            return False
        view = view.inputs[0]
    return True


def _bytes_beside(node: Node, other: Node) -> int | None:
    """Bytes of ``node``; of one element if only the sizes of both are known to be the same."""
    count = node.tensor_type.numel
    if isinstance(count, int) and isinstance(other.tensor_type.numel, int):
        return count * node.dtype.itemsize
    return node.dtype.itemsize if node.shape == other.shape else None
