"""Functions of many small operations that eager code runs as one program, where that is ready.

A layer of an LSTM is a thousand operations of a few microseconds each, most of which are Python's,
and a loss goes through its logits a dozen times.  A function marked :func:`as_a_whole` runs so at
first; once arguments of the same kinds have come :data:`OFTEN`, a thread compiles the function (and
its gradient) for them beside the work that goes on, and from then on the compiled one is called.
``gf.use_deterministic_algorithms`` and ``gf.backends.cpu.eager_kernels`` mean here what they mean
for single operations (:mod:`graphflow.eager_kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from graphflow import flags, pytree
from graphflow.backends import cpu
from graphflow.capture import Static
from graphflow.cell import Cell
from graphflow.mode import mode
from graphflow.numerics import are_deterministic_algorithms_enabled
from graphflow.runtime.threads import get_num_threads
from graphflow.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

OFTEN = 8
"""Calls after which compiling, which takes about a second, is worth it."""
MOST, COUNTED = 16, 256
"""Kinds of arguments for which a function is compiled, and of which calls are counted."""
SEVERAL = 4096
"""Elements from which one call of a program takes less time than a few operations."""


def as_a_whole(least: int = 0) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function of tensors, in nests, and of settings that can be compared; results are new
    tensors, and it may write to those that it is given without gradients.

    It must not read anything else that may change, nor draw random numbers.  If its first argument
    is a tensor of less than ``least`` elements, it is always run as it is.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        return _whole(function, least)

    return mark


def _whole(function: Callable[P, R], least: int) -> Callable[P, R]:
    kinds: dict[Any, _Kind] = {}

    @wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        if mode.tracer is not None or not cpu.eager_kernels or flags.DISABLE_JIT.value:
            return function(*args, **kwargs)
        if least and args and isinstance(args[0], Tensor) and args[0]._eager().size < least:
            return function(*args, **kwargs)
        leaves, nest = pytree.flatten((args, kwargs))
        key = _kind(leaves, nest)
        known = None if key is None else kinds.get(key)
        if known is None:
            if key is None or not _has_room(kinds):
                return function(*args, **kwargs)
            known = kinds[key] = _Kind(function)
        if not known.is_ready:
            known.count(leaves, nest)
        if not known.is_ready:
            return function(*args, **kwargs)
        if float in map(type, leaves):
            settled, named = pytree.unflatten(nest, list(map(_settled, leaves)))
            return known.compiled(*settled, **named)  # type: ignore[no-any-return]
        return known.compiled(*args, **kwargs)  # type: ignore[no-any-return]

    return whole


def _has_room(kinds: dict[Any, _Kind]) -> bool:
    """Whether one more kind may be looked at; those that came seldom are forgotten for it."""
    if len(kinds) >= COUNTED:
        for key in [key for key, known in kinds.items() if known.compiled is None]:
            kinds.pop(key, None)
    return sum(known.compiled is not None for known in list(kinds.values())) < MOST


def _kind(leaves: Sequence[Any], nest: pytree.Structure) -> Any:
    """What a program of these arguments depends on; None where there can be none."""
    if mode.guard is not None or mode.autocast is not None or mode.part is not None:
        return None
    if mode.packing is not None and mode.grad:
        return None  # a program saves values that hooks would not see
    parts: list[Any] = [nest, mode.grad, get_num_threads()]
    cells = set()
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            if callable(leaf):
                return None
            parts.append((leaf.__class__, leaf))
            continue
        array = leaf._eager()
        if array.__class__ is not np.ndarray or leaf._cell in cells:
            return None  # on a device, or two arguments in one memory
        cells.add(leaf._cell)
        parts.append((array.dtype, array.shape, leaf._requires_grad))
    return tuple(parts)


class _Kind:
    """A function for arguments of one kind: compiled for them, or on the way to that."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.compiled: Any = None
        self.is_ready = False
        self._function, self._calls = function, 0

    def count(self, leaves: Sequence[Any], nest: pytree.Structure) -> None:
        """One more call; after enough of them the function is compiled, beside or at once."""
        from graphflow.compiled import Compiled
        from graphflow.eager_kernels import compile_beside

        self._calls += 1
        at_once = are_deterministic_algorithms_enabled()
        if self.compiled is not None or (self._calls < OFTEN and not at_once):
            return
        self.compiled = Compiled(self._function, dynamic=False)
        self.compiled.tells = False
        prepare = partial(
            self._prepare, [list(map(_like, leaves)) for _ in range(2)], nest, mode.grad
        )
        if at_once:
            prepare()
        else:
            compile_beside(prepare)

    def _prepare(
        self, examples: Sequence[Sequence[Any]], nest: pytree.Structure, grad: bool
    ) -> None:
        """Compile for arguments like these, by calls (a function that writes to arguments is known
        to reach them as such after the second), and its gradient, by another."""
        from graphflow.autograd.engine import backward
        from graphflow.autograd.modes import GradMode
        from graphflow.eager_kernels import stays_with_numpy

        try:
            with GradMode(grad):
                for leaves in examples:
                    args, kwargs = pytree.unflatten(nest, list(map(_settled, leaves)))
                    results, _ = pytree.flatten(self.compiled(*args, **kwargs))
                outs = [out for out in results if isinstance(out, Tensor) and out._requires_grad]
                if outs:
                    backward(outs, [_like(out) for out in outs])
        except Exception as error:  # whatever it is, the function works without
            stays_with_numpy(self.compiled.__name__, error)
            return
        self.is_ready = True


def _like(leaf: Any) -> Any:
    """Zeros of the same kind, or the setting itself."""
    if not isinstance(leaf, Tensor):
        return leaf
    array = leaf._eager()
    made: Tensor = Tensor._of(Cell(np.zeros(array.shape, array.dtype)))
    made._requires_grad = leaf._requires_grad
    return made


def _settled(leaf: Any) -> Any:
    """A setting that is a number is not a value to compute with."""
    return Static(leaf) if type(leaf) is float else leaf
