"""The module, by the address that scripts import it from, and hooks of all modules.

What is registered here is called for every module, before the hooks of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.handles import RemovableHandle
from graphflow.nn.hooks import BackwardHook, ForwardHook, register_everywhere
from graphflow.nn.module import Module

__all__ = [
    "Module", "register_module_backward_hook", "register_module_forward_hook",
    "register_module_forward_pre_hook", "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]  # fmt: skip


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args[, kwargs], output)`` after forward; its result replaces output.

    ``always_call``: also when forward raises (the output is None then).
    """
    return register_everywhere("_forward_hooks", ForwardHook(hook, with_kwargs, always_call))


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, args)`` before forward; its result replaces the arguments."""
    return register_everywhere("_forward_pre_hooks", ForwardHook(hook, False))


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_input, grad_output)``; its result replaces ``grad_input``."""
    return register_everywhere("_backward_hooks", BackwardHook(hook))


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_output)`` before the module's own backward."""
    return register_everywhere("_backward_pre_hooks", BackwardHook(hook))


register_module_backward_hook = register_module_full_backward_hook
