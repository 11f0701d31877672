"""Memory for time: parts of a model that are computed again for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from graphflow.autograd.recompute import recomputed
from graphflow.errors import GraphFlowError
from graphflow.mode import mode

__all__ = [
    "checkpoint", "checkpoint_sequential", "noop_context_fn", "set_checkpoint_debug_enabled",
    "set_checkpoint_early_stop",
]  # fmt: skip


def noop_context_fn() -> tuple[Any, Any]:
    """Contexts that do nothing, for the forward run and the one in the backward pass."""
    return nullcontext(), nullcontext()


def set_checkpoint_early_stop(enable: bool) -> AbstractContextManager[None]:
    """A context that changes nothing: what is computed again is what the gradients need."""
    return nullcontext()


def set_checkpoint_debug_enabled(enabled: bool | None) -> AbstractContextManager[None]:
    """A context that changes nothing: what is computed again is the same function."""
    return nullcontext()


def checkpoint(
    function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn, preserve_rng_state: bool = True,
    determinism_check: str = "default", debug: bool = False, early_stop: bool = True,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """``function(*args, **kwargs)``, keeping its arguments instead of its inner values.

    The backward pass runs the function again.  Works eagerly and in compiled functions, to any
    order, and for parameters that the function reaches by itself.  ``preserve_rng_state``:
    dropout drops the same again.  ``context_fn`` gives a context for each of the two runs.
    ``use_reentrant`` and the other options are PyTorch's and change nothing here: there is one
    implementation, which does what PyTorch's without re-entrance does.
    """
    if not mode.grad:
        return function(*args, **kwargs)
    if context_fn is noop_context_fn:
        return recomputed(function, args, kwargs, preserve_rng_state)
    contexts = list(context_fn())

    def in_context(*given: Any, **named: Any) -> Any:
        with contexts[0] if len(contexts) == 1 else contexts.pop(0):
            return function(*given, **named)

    return recomputed(in_context, args, kwargs, preserve_rng_state)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """A sequence of modules in ``segments`` parts, all but the last of them checkpointed."""
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError(f"checkpoint_sequential has no options {', '.join(sorted(kwargs))}")
    steps = list(functions)  # of a module that is there twice, both
    if not 1 <= segments <= len(steps):
        raise GraphFlowError(
            f"checkpoint_sequential: {len(steps)} modules cannot be cut into {segments} segments"
        )
    size = len(steps) // segments
    for number in range(segments - 1):
        part = _in_turn(steps[number * size : (number + 1) * size])
        input = checkpoint(part, input, preserve_rng_state=preserve)
    return _in_turn(steps[(segments - 1) * size :])(input)


def _in_turn(steps: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return run
