"""Hooks on the tensors that operations save for their gradients: ``gf.autograd.graph``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from graphflow.device import CPU, Device
from graphflow.errors import TraceError
from graphflow.mode import mode
from graphflow.tensor import Tensor

__all__ = ["save_on_cpu", "saved_tensors_hooks"]


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
