"""Hooks of modules: around the forward call, and at the gradients of its arguments and results.

Backward hooks need every gradient of a call at once.  So each tensor that goes in
(or comes out) passes a *gate*; the gates of a side keep what arrives and lead to one
*junction*, which the sweep reaches after all of them, and which calls the hooks.

Hooks of all modules are in one list beside the modules', and are called before theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.history import GradNode, edge_of
from graphflow.autograd.modes import no_grad
from graphflow.dispatch import apply_view, full
from graphflow.handles import RemovableHandle
from graphflow.mode import structure
from graphflow.tensor import Tensor

Gradients = tuple[Tensor | None, ...]


class ForwardHook:
    """A registered forward (pre-)hook with its options."""

    __slots__ = ("always_call", "function", "with_kwargs")

    def __init__(
        self, function: Callable[..., Any], with_kwargs: bool, always_call: bool = False
    ) -> None:
        self.function, self.with_kwargs, self.always_call = function, with_kwargs, always_call


class BackwardHook:
    """A registered backward (pre-)hook."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


everywhere: list[tuple[str, ForwardHook | BackwardHook]] = []
"""The hooks of all modules, each with the name of the list that a module has for such."""


def register_everywhere(table: str, hook: ForwardHook | BackwardHook) -> RemovableHandle:
    """Have all modules call ``hook`` as one of their lists called ``table``."""
    everywhere.append((table, hook))
    structure.bump()
    return RemovableHandle(everywhere, everywhere[-1])


def hooks_of(module: Any, table: str) -> list[Any]:
    """What is called for ``module``: the hooks of all modules, then its own."""
    own = getattr(module, table)
    return [*(hook for name, hook in everywhere if name == table), *own]


def assume_everywhere(tracer: Any) -> None:
    """Assume in a trace that the hooks of all modules stay as they are."""
    tracer.guard(lambda: tuple(everywhere), tuple(everywhere), "hooks of all modules")


class _Junction(GradNode):
    """Where the gradients of one side of a call meet."""

    __slots__ = ("meet", "received")

    meet: Callable[[Gradients], Gradients]
    received: list[Tensor | None]

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """What the hooks make of the gradients; ``ct`` only says that some have arrived."""
        found = list(self.meet(tuple(self.received)))
        self.received = [None] * len(self.received)
        return found


class _Gate(GradNode):
    """Keeps the gradient of one tensor for its junction."""

    __slots__ = ("junction", "place")

    junction: _Junction
    place: int

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """A mere signal to the junction."""
        self.junction.received[self.place] = ct
        return [full((), 0, ct.dtype)]


def _gated(values: Sequence[Any], meet: Callable[[Gradients], Gradients]) -> list[Any]:
    """``values`` with its differentiable tensors led through gates to a junction."""
    tensors = tuple(v for v in values if isinstance(v, Tensor))
    junction = _Junction(None, tensors, {})
    junction.meet, junction.received = meet, [None] * len(tensors)
    found, place = [], 0
    for value in values:
        if not isinstance(value, Tensor):
            found.append(value)
            continue
        if value.requires_grad:
            with no_grad():
                shown = apply_view("reshape", value, shape=tuple(value.shape))
            gate = _Gate(None, (), {})
            gate.junction, gate.place = junction, place
            shown._grad_fn, shown._requires_grad = junction, True
            edge = edge_of(shown)
            assert edge is not None
            gate.edges = (edge,)
            shown._grad_fn = gate
            value = shown
        found.append(value)
        place += 1
    return found


class BackwardCall:
    """One call of a module whose gradients are watched."""

    def __init__(self, module: Any, pre: Sequence[Any], after: Sequence[Any]) -> None:
        self.module, self.pre, self.after = module, tuple(pre), tuple(after)
        self.given: Gradients = ()
        self.waits = False

    def arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, watched."""
        self.count = sum(isinstance(a, Tensor) for a in args)
        self.waits = any(isinstance(a, Tensor) and a.requires_grad for a in args)
        return tuple(_gated(args, self._at_arguments)) if self.waits and self.after else args

    def results(self, out: Any) -> Any:
        """The result (a tensor, or a tuple or list of them), watched."""
        if isinstance(out, Tensor):
            return _gated([out], self._at_results)[0]
        if isinstance(out, (tuple, list)):
            found = _gated(out, self._at_results)
            return type(out)(*found) if hasattr(out, "_fields") else type(out)(found)
        return out

    def _at_results(self, gradients: Gradients) -> Gradients:
        for hook in self.pre:
            gradients = _changed(hook.function(self.module, gradients), gradients)
        self.given = gradients
        if not self.waits:
            for hook in self.after:
                hook.function(self.module, (None,) * self.count, gradients)
        return gradients

    def _at_arguments(self, gradients: Gradients) -> Gradients:
        for hook in self.after:
            gradients = _changed(hook.function(self.module, gradients, self.given), gradients)
        return gradients


def _changed(answer: Any, gradients: Gradients) -> Gradients:
    """What a hook returned instead of the gradients; None leaves them."""
    if answer is None:
        return gradients
    found = answer if isinstance(answer, tuple) else (answer,)
    if len(found) != len(gradients):
        raise ValueError(
            f"a backward hook returned {len(found)} gradients where there are {len(gradients)}"
        )
    return found
