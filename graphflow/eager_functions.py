"""Functions of several operations that eager code runs as one program, where that is ready.

A layer of an LSTM is a thousand operations of a few microseconds each, most of which are Python's,
and a loss goes through its logits a dozen times.  A function marked :func:`as_a_whole` runs so at
first; once arguments of the same kinds have come often, a thread compiles the function (and its
gradient) for them beside the work that goes on, and from then on the compiled one is called.
``gf.use_deterministic_algorithms`` and ``gf.backends.cpu.eager_kernels`` mean here what they mean
for single operations (:mod:`graphflow.eager_kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from types import NoneType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from graphflow import flags, pytree
from graphflow.backends import cpu
from graphflow.cell import Cell
from graphflow.mode import mode
from graphflow.numerics import compiles_at_once
from graphflow.runtime.threads import get_num_threads
from graphflow.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

OFTEN, SMALL_OFTEN = 8, 400
"""Calls after which compiling, which takes about a second, is worth it: there is a millisecond of
work to be saved in each, or not more than fifty microseconds."""
MOST, COUNTED = 16, 256
"""Kinds of arguments for which a function is compiled, and of which calls are counted."""
SEVERAL = 4096
"""Elements from which a few operations are work."""


def as_a_whole(least: int = 0) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function of tensors, in nests, and of settings that can be compared; results are new
    tensors, and it may write to those that it is given without gradients.

    It must not read anything else that may change, nor draw random numbers.  If its first argument
    is a tensor of less than ``least`` elements, it is small.
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
        tensors: list[Tensor] = []
        key = _key(args, kwargs, tensors)
        known = None if key is None else kinds.get(key)
        if known is None:
            if key is None or not _has_room(kinds):
                return function(*args, **kwargs)
            small = bool(tensors) and tensors[0]._eager().size < least
            known = kinds[key] = _Kind(function, args, kwargs, SMALL_OFTEN if small else OFTEN)
        if not known.is_ready:
            known.count(tensors)
        if not known.is_ready:
            return function(*args, **kwargs)
        return known.compiled(*tensors)  # type: ignore[no-any-return]

    return whole


def _has_room(kinds: dict[Any, _Kind]) -> bool:
    """Whether one more kind may be looked at; those that came seldom are forgotten for it."""
    if len(kinds) >= COUNTED:
        for key in [key for key, known in kinds.items() if known.compiled is None]:
            kinds.pop(key, None)
    return sum(known.compiled is not None for known in list(kinds.values())) < MOST


def _key(args: tuple[Any, ...], kwargs: Mapping[str, Any], tensors: list[Tensor]) -> Any:
    """What a program of these arguments depends on, the tensors among them to go to ``tensors``;
    None where there can be none."""
    if mode.guard is not None or mode.autocast is not None or mode.part is not None:
        return None
    if mode.packing is not None and mode.grad:
        return None  # a program saves values that hooks would not see
    parts: list[Any] = [mode.grad, get_num_threads()]
    for value in args:
        if not _described(value, parts, tensors):
            return None
    for name, value in kwargs.items():
        parts.append(name)
        if not _described(value, parts, tensors):
            return None
    if len({x._cell for x in tensors}) < len(tensors):
        return None  # two arguments in one memory
    return tuple(parts)


_PLAIN = {NoneType, bool, int, float, str}


def _described(value: Any, parts: list[Any], tensors: list[Tensor]) -> bool:
    """Add to ``parts`` what a program depends on of an argument; whether there can be one."""
    kind = value.__class__
    if kind in _PLAIN:
        parts += (kind, value)
        return True
    if isinstance(value, Tensor):
        array = value._eager()
        if array.__class__ is not np.ndarray:
            return False  # on a device
        parts += (array.dtype, array.shape, value._requires_grad)
        tensors.append(value)
        return True
    leaves, nest = pytree.flatten(value)
    if nest == pytree.LEAF:
        parts += (kind, value)
        return not callable(value)
    parts.append(nest)
    return all(_described(leaf, parts, tensors) for leaf in leaves)


class _Kind:
    """A function for arguments of one kind: compiled for their tensors, or on the way to that."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any],
        often: int,
    ) -> None:  # fmt: skip
        self.compiled: Any = None
        self.is_ready = False
        self._function, self._calls, self._often = function, 0, often
        leaves, self._nest = pytree.flatten((args, dict(kwargs)))
        self._settings = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def count(self, tensors: Sequence[Tensor]) -> None:
        """One more call; after enough of them the function is compiled, beside or at once."""
        from graphflow.compiled import Compiled
        from graphflow.eager_kernels import compile_beside

        self._calls += 1
        at_once = compiles_at_once()
        if self.compiled is not None or (self._calls < self._often and not at_once):
            return
        self.compiled = Compiled(self._of_tensors(), dynamic=False)
        self.compiled.tells = False
        examples = [list(map(_like, tensors)) for _ in range(2)]
        prepare = partial(self._prepare, examples, mode.grad)
        if at_once:
            prepare()
        else:
            compile_beside(prepare)

    def _of_tensors(self) -> Callable[..., Any]:
        """The function of its tensors alone, settings being what they are."""
        function, settings, places, nest = (
            self._function, self._settings, self._places, self._nest
        )  # fmt: skip

        @wraps(function)
        def of_tensors(*tensors: Tensor) -> Any:
            leaves = list(settings)
            for place, tensor in zip(places, tensors, strict=True):
                leaves[place] = tensor
            args, kwargs = pytree.unflatten(nest, leaves)
            return function(*args, **kwargs)

        return of_tensors

    def _prepare(self, examples: Sequence[Sequence[Tensor]], grad: bool) -> None:
        """Compile for arguments like these, by calls (a function that writes to arguments is known
        to reach them as such after the second), and its gradient, by another."""
        from graphflow.autograd.engine import backward
        from graphflow.autograd.modes import GradMode
        from graphflow.eager_kernels import stays_with_numpy

        try:
            with GradMode(grad):
                for tensors in examples:
                    results, _ = pytree.flatten(self.compiled(*tensors))
                outs = [out for out in results if isinstance(out, Tensor) and out._requires_grad]
                if outs:
                    backward(outs, [_like(out) for out in outs])
        except Exception as error:  # whatever it is, the function works without
            stays_with_numpy(self.compiled.__name__, error)
            return
        self.is_ready = True


def _like(tensor: Tensor) -> Tensor:
    """Zeros of the same kind."""
    array = tensor._eager()
    made: Tensor = Tensor._of(Cell(np.zeros(array.shape, array.dtype)))
    made._requires_grad = tensor._requires_grad
    return made
