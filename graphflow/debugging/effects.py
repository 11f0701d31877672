"""What happens at every run of a compiled function: printing, callbacks, a debugger."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.autograd.modes import in_grad_mode
from graphflow.cell import Cell
from graphflow.dispatch import apply, assign
from graphflow.errors import TraceError
from graphflow.functions.creation import as_tensor, tensor
from graphflow.ir.ops.effects import remember_function
from graphflow.mode import mode
from graphflow.tensor import Tensor

_token: list[Tensor] = []


def callback(fn: Callable[..., Any], *tensors: Any) -> None:
    """Call ``fn`` with the values of ``tensors``, at every call of a compiled function too.

    ``fn`` gets detached copies; what it returns is dropped.  Calls keep their order.  An
    exception ends the step.  Raises :class:`TraceError` in the body of a loop or branch.
    """
    values = [as_tensor(t) for t in tensors]
    tracer = mode.tracer
    if tracer is None:
        fn(*(tensor(np.array(t._eager())) for t in values))
        return
    if tracer.region is not None:
        raise TraceError(
            f"{tracer.region.what}: the body calls a Python function (gf.print, gf.callback or "
            "gf.breakpoint); return the value from the body and look at it outside"
        )
    number = remember_function(lambda *arrays: fn(*map(Tensor, arrays)))
    ordered_effect("callback", *values, function=number)


def ordered_effect(op: str, *values: Tensor, **attrs: Any) -> Tensor:
    """Apply ``op``, which takes a token first, after all effects so far; the token it returns."""

    def applied() -> Tensor:
        token = _token_tensor()
        new = apply(op, token, *(t.detach() for t in values), **attrs)
        assign(token, new)
        return new

    return in_grad_mode(False, applied)


def print(*values: Any, label: str | None = None) -> None:
    """Print tensors at every call, in a compiled function too; ``label`` comes first.

    Values that are no tensors are printed as they were when the function was traced.
    """
    tensors = [v for v in values if isinstance(v, Tensor)]
    texts = [None if isinstance(v, Tensor) else str(v) for v in values]
    callback(partial(_print, texts, label), *tensors)


def _print(texts: list[str | None], label: str | None, *tensors: Tensor) -> None:
    rest = iter(tensors)
    parts = [str(next(rest)) if text is None else text for text in texts]
    builtins.print(*([f"{label}:"] if label else []), *parts)


def breakpoint() -> None:
    """Stop in the debugger here, in a compiled function too: at every call, with its values.

    In a compiled function the debugger sees the local variables of the place, tensors with
    their values in the running step; assigning to them changes nothing.  Which debugger is
    Python's business (``PYTHONBREAKPOINT``, ``sys.breakpointhook``).
    """
    frame = sys._getframe(1)
    tracer = mode.tracer
    if tracer is None:
        _stop_in(frame)
        return
    leaves, structure = pytree.flatten(dict(frame.f_locals))
    traced = [i for i, v in enumerate(leaves) if isinstance(v, Tensor) and v._cell.tracer is tracer]
    place = (
        frame.f_globals,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_code.co_name,
    )

    def stop(*tensors: Tensor) -> None:
        now = list(leaves)
        for i, value in zip(traced, tensors, strict=True):
            now[i] = value
        _stop_at(pytree.unflatten(structure, now), *place)

    callback(stop, *(leaves[i] for i in traced))


def _stop_in(frame: FrameType) -> None:
    """The debugger in a frame that is running."""
    plain = sys.breakpointhook is sys.__breakpointhook__
    if plain and not os.environ.get("PYTHONBREAKPOINT"):
        import pdb

        pdb.Pdb(nosigint=True).set_trace(frame)
    else:
        sys.breakpointhook()


def _stop_at(
    variables: dict[str, Any],
    scope: dict[str, Any],
    file: str,
    line: int,
    function: str,
) -> None:
    """The debugger in a frame made for it, which looks like the user's at ``line``."""
    code = compile("\n" * (line - 1) + "__stop__()", file, "exec").replace(co_name=function)
    exec(code, {**scope, "__stop__": sys.breakpointhook}, variables)


def _token_tensor() -> Tensor:
    """The memory that orders the effects of all programs."""
    if not _token:
        made: Tensor = Tensor._of(Cell(np.zeros((), np.int64)))
        made.name = "effects"
        _token.append(made)
    return _token[0]
