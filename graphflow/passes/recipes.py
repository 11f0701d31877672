"""How one kernel's results can be made again: the part of its body that they need, and its cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod
from typing import TypeAlias

from graphflow.ir.build import input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node, with_inputs
from graphflow.ir.op import Kind
from graphflow.ir.products import depth_of
from graphflow.passes.dataflow import is_alias
from graphflow.passes.outline import Task
from graphflow.records import NamedTuple, dataclass

PRODUCTS = 1.6e11
"""Multiplications and additions a second of matrix products: only ratios of costs matter."""
SCALARS = 1e11
"""Instructions a second of elementwise work."""
BYTES = 4e10
"""Bytes a second to and from memory."""
START = 2e-6
"""Seconds to start a kernel."""
DIRECT = 512
"""Operations for an element of a product over tiles of images."""

_Key: TypeAlias = tuple[tuple[Node, ...], tuple[Node, ...], frozenset[int], frozenset[int]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The ``nodes`` of a body that make its outputs ``wanted`` of its ``inputs`` and of its
    outputs ``given`` (all by position), in ``seconds``."""

    wanted: Sequence[int]
    inputs: Sequence[int]
    given: Sequence[int]
    nodes: Sequence[Node]
    seconds: float
    multiplies: bool
    fallible: bool


class Recipes:
    """Recipes by body: equal layers have equal ones."""

    def __init__(self) -> None:
        self._known: dict[_Key, Recipe] = {}

    def of(self, body: Graph, wanted: Collection[int], given: Collection[int]) -> Recipe:
        """How to make the outputs ``wanted`` where the outputs ``given`` are at hand."""
        key = (body.inputs, body.outputs, frozenset(wanted), frozenset(given))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _recipe(body, sorted(wanted), sorted(given))
        return found

    def whole(self, task: Task) -> float:
        """Seconds of the whole task."""
        if not task.body.outputs:
            return START
        return self.of(task.body, range(len(task.body.outputs)), ()).seconds


def _recipe(body: Graph, wanted: Sequence[int], given: Sequence[int]) -> Recipe:
    at_hand = {body.outputs[g]: g for g in given}
    nodes, inputs, read = _above([body.outputs[w] for w in wanted], set(body.inputs), at_hand)
    position = {node: i for i, node in enumerate(body.inputs)}
    moved = [*inputs, *read, *(body.outputs[w] for w in wanted)]
    size = sum(node.tensor_type.static_bytes for node in moved)
    seconds = START + sum(map(_seconds, nodes)) + size / BYTES
    multiplies = any(n.op.kind is Kind.CONTRACTION for n in nodes)
    places = sorted(position[n] for n in inputs)
    fallible = any(n.op.fallible for n in nodes)
    taken = sorted(at_hand[n] for n in read)
    return Recipe(wanted, places, taken, nodes, seconds, multiplies, fallible)


def written_seconds(nodes: Sequence[Node], results: Sequence[Node]) -> float:
    """Seconds that ``nodes`` take in a kernel that runs anyway and also stores ``results``."""
    size = sum(node.tensor_type.static_bytes for node in results)
    return sum(map(_seconds, nodes)) + size / BYTES


def _above(
    roots: Sequence[Node], inputs: Collection[Node], at_hand: Collection[Node]
) -> tuple[list[Node], set[Node], set[Node]]:
    """What makes ``roots``, operands first; the inputs and other values that are read."""
    order: list[Node] = []
    read: set[Node] = set()
    leaves: set[Node] = set()
    done: set[Node] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, complete = stack.pop()
        if complete:
            order.append(node)
        elif node not in done:
            done.add(node)
            if node in inputs or node in at_hand:
                (leaves if node in inputs else read).add(node)
                continue
            stack.append((node, True))
            stack += [(n, False) for n in reversed(node.inputs)]
    return order, leaves, read


def _count(node: Node) -> int:
    return prod(node.tensor_type.static_shape)


def _seconds(node: Node) -> float:
    kind = node.op.kind
    if kind is Kind.CONTRACTION:
        return 2.0 * _depth(node) * _count(node) / PRODUCTS
    if kind is Kind.LEAF or (kind is Kind.VIEW and is_alias(node)):
        return 0.0
    largest = max([_count(node), *(_count(n) for n in node.inputs)])
    return largest * node.op.cost / SCALARS


def _depth(node: Node) -> int:
    """How many products are added up for an element."""
    if node.op.contraction is None or node.op.tiles is not None:
        return DIRECT // 2
    return depth_of(node)


class Body(NamedTuple):
    """The body of a kernel that follows a recipe, whose last input is read by nothing."""

    kind: str
    graph: Graph


def body_of(task: Task, recipe: Recipe, token: Node | None) -> Body:
    """A kernel that makes what ``recipe`` makes, of what the recipe reads, in that order.

    It also takes ``token`` and does nothing with it: it cannot begin before that is there.
    """
    body = task.body
    sources = [body.inputs[i] for i in recipe.inputs] + [body.outputs[g] for g in recipe.given]
    new: dict[Node, Node] = {
        node: input_node(f"x{i}", node.tensor_type) for i, node in enumerate(sources)
    }
    inputs = list(new.values())
    if token is not None:
        inputs.append(input_node(f"x{len(inputs)}", token.tensor_type))
    locations = {}
    for node in recipe.nodes:
        new[node] = with_inputs(node, [new[n] for n in node.inputs])
        if node in body.locations:
            locations[new[node]] = body.locations[node]
    outputs = tuple(new[body.outputs[w]] for w in recipe.wanted)
    kind = task.kind if recipe.multiplies else "loop"
    return Body(kind, Graph(tuple(inputs), outputs, name="body", locations=locations))
