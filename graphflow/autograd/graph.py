"""Hooks on gradients of several tensors and on what operations save: ``gf.autograd.graph``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from graphflow.autograd.engine import call_afterwards
from graphflow.autograd.history import GradNode as Node
from graphflow.device import CPU, Device
from graphflow.errors import TraceError
from graphflow.handles import RemovableHandle
from graphflow.mode import mode
from graphflow.tensor import Tensor

__all__ = ["Node", "register_multi_grad_hook", "save_on_cpu", "saved_tensors_hooks"]


_Outer: TypeAlias = "tuple[saved_tensors_hooks | None, _Outer | None]"


class saved_tensors_hooks:
    """``with saved_tensors_hooks(pack, unpack): …`` puts hooks between operations and their memory.

    Whenever an eager operation saves a tensor for its gradient, ``pack(tensor)`` is called, with
    gradients off, and what it returns is saved instead; backward calls ``unpack`` with that, which
    must return a tensor of the same values, shape and dtype.  Of contexts inside of each other the
    innermost one is asked.  A ``pack`` that returns its very argument makes a cycle of references,
    where that is the operation's own result; ``detach()`` it.

    Compiled functions keep what their backward needs in programs, which call no hooks; opening the
    context in one raises :class:`TraceError`.
    """

    def __init__(
        self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]
    ) -> None:
        for name, hook in (("pack_hook", pack_hook), ("unpack_hook", unpack_hook)):
            if not callable(hook):
                raise TypeError(f"{name} must be callable, not {type(hook).__name__}")
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self._outer: _Outer | None = None

    def __enter__(self) -> None:
        if mode.tracer is not None:
            raise TraceError(
                f"{type(self).__name__} inside a compiled function has no meaning: its program "
                "decides what is kept; use it around eager code, or gf.utils.checkpoint here"
            )
        self._outer = mode.packing, self._outer
        mode.packing = self

    def __exit__(self, *exc: object) -> None:
        assert self._outer is not None
        mode.packing, self._outer = self._outer  # no call comes before: Ctrl-C might come, too


class save_on_cpu(saved_tensors_hooks):
    """Saved tensors wait for backward in the host's memory, and go back to their device for it.

    Those that are on the CPU stay as they are, not copied.  ``pin_memory`` has copies lie in
    page-locked memory, where there is a GPU.
    """

    def __init__(self, pin_memory: bool = False) -> None:
        def pack(tensor: Tensor) -> tuple[Device, Tensor]:
            device = tensor.device
            if device == CPU:
                return device, tensor.detach()
            copy = tensor.detach().cpu()
            return device, copy.pin_memory() if pin_memory else copy

        def unpack(kept: tuple[Device, Tensor]) -> Tensor:
            device, tensor = kept
            found: Tensor = tensor.to(device)
            return found

        super().__init__(pack, unpack)


class _Handles(RemovableHandle):
    """The handles of one hook on several tensors."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        self._handles = tuple(handles)

    def remove(self) -> None:
        """Remove the hook from all of them; a second call does nothing."""
        for handle in self._handles:
            handle.remove()


class _Arrivals:
    """The gradients of several tensors in the backward pass under way."""

    def __init__(self, count: int, function: Callable[[list[Tensor | None]], None]) -> None:
        self._function = function
        self._found: list[Tensor | None] = [None] * count

    def take(self, place: int, gradient: Tensor) -> None:
        """One has come; the last one, or the end of the pass, calls the function."""
        if call_afterwards(self, self._tell):
            self._forget()
        self._found[place] = gradient
        if all(g is not None for g in self._found):
            self._tell()

    def _forget(self) -> None:
        self._found = [None] * len(self._found)

    def _tell(self) -> None:
        found = self._found
        if any(g is not None for g in found):
            self._forget()
            self._function(found)


def _first(function: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """A hook that calls ``function`` with the first gradient of each backward pass."""

    def take(gradient: Tensor) -> None:
        if call_afterwards(take, lambda: None):
            function(gradient)

    return take


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[..., None], *, mode: str = "all"
) -> RemovableHandle:
    """Call ``fn`` in every backward pass in which gradients of ``tensors`` arrive.

    With ``mode="all"`` it is called once with all their gradients, None for those that the pass
    does not reach, as soon as all are there, or at the pass's end where some do not come; with
    "any" it gets the first gradient.  What it returns is ignored.
    """
    if mode not in ("all", "any"):
        raise ValueError(f"register_multi_grad_hook: mode is 'all' or 'any', not {mode!r}")
    watched = tuple(tensors)
    if mode == "any":
        first = _first(fn)
        return _Handles([t.register_hook(first) for t in watched])
    arrivals = _Arrivals(len(watched), fn)
    return _Handles([t.register_hook(partial(arrivals.take, i)) for i, t in enumerate(watched)])
