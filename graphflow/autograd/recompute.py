"""A part of a computation that is done again in the backward pass instead of being kept.

The part runs once with histories, which say where its gradients go, and are then let go of
with all that they hold; only its arguments stay.  When cotangents arrive it runs again.  In a
trace the second run reads its arguments ``after`` the cotangent is there: equal nodes on equal
operands would be one node otherwise, and nothing would be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from graphflow import dispatch, pytree
from graphflow.autograd.engine import _Sweep
from graphflow.autograd.history import SHARED, Edge, GradNode, serials
from graphflow.autograd.modes import GradMode
from graphflow.autograd.saved import hooks_at_work, packed, unpacked
from graphflow.autograd.several import Collector, attach
from graphflow.errors import GraphFlowError
from graphflow.functions.shaping import narrow, reshape
from graphflow.mode import mode
from graphflow.promotion import cast
from graphflow.records import replace
from graphflow.rng import default_generator
from graphflow.tensor import Tensor

Part = Callable[[list[Any]], tuple[list[Any], Any]]
"""From the leaves of the arguments to the leaves of the result, and how they nest."""


def recomputed(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], draws: bool
) -> Any:
    """``function(*args, **kwargs)``, whose inner values are computed again for the gradient.

    ``draws``: random numbers are the same again.
    """
    leaves, nest = pytree.flatten((args, kwargs))

    chosen, place = mode.autocast, mode.part
    if chosen is not None:  # a cast that was kept belongs to one run only
        chosen = replace(chosen, cached=False)

    def part(given: list[Any]) -> tuple[list[Any], Any]:
        again, named = pytree.unflatten(nest, given)
        held = mode.autocast, mode.part, mode.packing
        try:
            mode.autocast, mode.part, mode.packing = chosen, place, None
            mode.note()
            return pytree.flatten(function(*again, **named))
        finally:
            mode.autocast, mode.part, mode.packing = held
            mode.note()

    before = _Draws() if draws else None
    start = next(serials)
    outs, shape = part(leaves)
    with_history = [
        i for i, out in enumerate(outs) if isinstance(out, Tensor) and _newer(out, start)
    ]
    edges = _outer_edges([outs[i] for i in with_history], start)
    for i in with_history:
        outs[i] = outs[i].detach()
    if edges:
        node = RecomputedNode(part, leaves, before, edges, with_history)
        attach([outs[i] for i in with_history], node)
    return pytree.unflatten(shape, outs)


def _newer(tensor: Tensor, start: int) -> bool:
    node = tensor.grad_fn
    return node is not None and node.serial >= start


def _outer_edges(outs: Sequence[Tensor], start: int) -> list[Edge]:
    """Where the gradients of histories made since ``start`` leave them, each place once."""
    found: dict[int, Edge] = {}
    seen: set[int] = set()
    stack = [out.grad_fn for out in outs]
    while stack:
        node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        for edge in node.edges:
            if edge is None:
                continue
            if edge.node is not None and edge.node.serial >= start:
                stack.append(edge.node)
            else:
                found.setdefault(id(edge.node or edge.leaf), edge)
    return list(found.values())


class RecomputedNode(Collector):
    """The history of a part that is computed again when its cotangents are there."""

    __slots__ = ("arguments", "before", "numbers", "part", "seen_at")

    passes_on: ClassVar[int] = SHARED  # what is inside may

    def __init__(
        self,
        part: Part,
        arguments: list[Any],
        before: _Draws | None,
        edges: Sequence[Edge],
        numbers: Sequence[int],
    ) -> None:
        super().__init__(None, (), {})
        hooks = hooks_at_work()
        if hooks is not None:
            arguments = [packed(hooks, x) for x in arguments]
        self.part, self.arguments, self.before = part, arguments, before
        self.edges = tuple(edges)
        self.numbers = tuple(numbers)
        """Which leaves of the result have a gradient."""
        self.seen_at = [x._version if isinstance(x, Tensor) else 0 for x in arguments]

    def name(self) -> str:
        """``CheckpointBackward``."""
        return "CheckpointBackward"

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """Run the part again, and send the cotangents through its histories."""
        if self.released:
            raise GraphFlowError(
                "backward through a checkpoint a second time, after its arguments were freed; "
                "pass retain_graph=True to the first backward()"
            )
        for argument, version in zip(self.arguments, self.seen_at, strict=True):
            if isinstance(argument, Tensor) and argument._version != version:
                raise GraphFlowError(
                    f"an argument of a checkpoint, of shape {list(argument.shape)}, was modified "
                    "by an in-place operation after the call; clone() it first"
                )
        start = next(serials)
        arrived = {i: self.arrived.pop(i) for i in sorted(self.arrived)}
        token = _token(next(iter(arrived.values())))
        with GradMode(True), _restored(self.before, token):
            outs, _ = self.part([_behind(unpacked(x), token) for x in self.arguments])
        sweep = _Inner(start, create_graph)
        with GradMode(create_graph):
            for i, cotangent in arrived.items():
                node = outs[self.numbers[i]].grad_fn
                if node is None:
                    raise GraphFlowError("a checkpointed function did something else when rerun")
                sweep.send(Edge(node, None), cotangent, SHARED)
            sweep.run()
        return [sweep.arrived_at(edge) for edge in self.edges if edge is not None]

    def release(self) -> None:
        """Let go of the arguments."""
        super().release()
        self.arguments = []


class _Inner(_Sweep):
    """A sweep that ends where histories are older than ``start``."""

    def __init__(self, start: int, create_graph: bool) -> None:
        super().__init__(create_graph, create_graph)
        self.start = start
        self.outer: dict[GradNode, Tensor] = {}

    def send(self, edge: Edge, ct: Tensor, owned: int) -> None:
        """Keep what leaves the part; the rest goes on."""
        node = edge.node
        if node is None or node.serial >= self.start:
            super().send(edge, ct, owned)
            return
        held = self.outer.get(node)
        self.outer[node] = ct if held is None else dispatch.apply("add", held, ct)

    def arrived_at(self, edge: Edge) -> Tensor | None:
        """What has left the part towards ``edge``."""
        if edge.node is not None:
            return self.outer.get(edge.node)
        entry = self.leaves.get(id(edge.leaf))
        return None if entry is None else entry[1]


def _token(ct: Tensor) -> Tensor | None:
    """In a trace, a number that is there once ``ct`` is."""
    if mode.tracer is None or 0 in tuple(ct.shape):
        return None
    token = ct.detach()
    for axis in range(token.ndim):
        token = narrow(token, axis, 0, 1)
    return reshape(token, ())


def _behind(argument: Any, token: Tensor | None) -> Any:
    """A floating argument such that nothing made of it is there before the token."""
    if token is None or not isinstance(argument, Tensor) or argument._weak:
        return argument
    if not argument.dtype.is_floating_point:
        return argument
    return dispatch.apply("after", argument, cast(token, argument.dtype))


class _Draws:
    """How many random numbers have been drawn at some point of the program."""

    def __init__(self) -> None:
        tracer = mode.tracer
        self.tracer = tracer
        self.counts = dict(tracer.draws) if tracer is not None else {}
        self.state = default_generator.get_state() if tracer is None else None

    def restore(self) -> None:
        """Draw from this point on."""
        if self.tracer is not None:
            self.tracer.draws.clear()
            self.tracer.draws.update(self.counts)
        elif self.state is not None:
            default_generator.set_state(self.state)


@contextmanager
def _restored(before: _Draws | None, token: Tensor | None) -> Iterator[None]:
    """Inside, random numbers are those drawn ``before``; afterwards those that follow now."""
    tracer = mode.tracer
    if before is None or before.tracer is not tracer:
        yield
        return
    now = _Draws()
    before.restore()
    held = None
    if tracer is not None:
        held, tracer.behind = tracer.behind, token
    try:
        yield
    finally:
        now.restore()
        if tracer is not None:
            tracer.behind = held
