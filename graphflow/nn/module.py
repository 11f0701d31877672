"""The module: a tree of parameters, buffers and sub-modules, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from graphflow.checks import need_dtype
from graphflow.errors import GraphFlowError
from graphflow.handles import RemovableHandle
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.mode import mode, structure
from graphflow.moves import moved
from graphflow.nn.hooks import (
    BackwardCall,
    BackwardHook,
    ForwardHook,
    assume_everywhere,
    everywhere,
    hooks_of,
)
from graphflow.nn.state import IncompatibleKeys, ModuleState
from graphflow.profiling import watch
from graphflow.promotion import cast
from graphflow.stale_gradient import fill_with_zeros
from graphflow.tensor import Tensor

__all__ = ["IncompatibleKeys", "Module"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Module(ModuleState):
    """Base of every layer and model: define ``__init__`` and ``forward``.

    Attributes that are :class:`Parameter`, tensors registered by
    ``register_buffer`` and other modules make up the tree.
    """

    _forward_hooks: list[ForwardHook]
    _forward_pre_hooks: list[ForwardHook]
    _backward_hooks: list[BackwardHook]
    _backward_pre_hooks: list[BackwardHook]
    _compiled: Any = None
    """What is called instead of the module, outside of traces."""

    def __init__(self) -> None:
        super().__init__()
        for name in _HOOKS:
            self.__dict__[name] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; define it in a sub-class."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Hooks, then :meth:`forward`."""
        tracer = mode.tracer
        if tracer is None:
            compiled = self._compiled
            if compiled is not None and not mode.one_by_one:
                return compiled(*args, **kwargs)
            return self._run(args, kwargs)
        if not tracer.modules:
            assume_everywhere(tracer)
        tracer.enter_module(self)
        try:
            return self._run(args, kwargs)
        except GraphFlowError as error:
            tracer.locate(error)
            raise
        finally:
            tracer.leave_module()

    def compile(self, **options: Any) -> None:
        """Compile the module in place: calls of it are calls of ``gf.compile(self, **options)``.

        Within a larger compiled function it is part of that.  ``parent.layer =
        gf.compile(parent.layer)`` does the same.
        """
        from graphflow.api import compile as compiled

        compiled(self, **options).install()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not (
            self._forward_hooks
            or self._forward_pre_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
            or everywhere
        ):
            return self.forward(*args, **kwargs)
        for pre in hooks_of(self, "_forward_pre_hooks"):
            args, kwargs = _prepared(self, pre, args, kwargs)
        done: set[int] = set()
        try:
            return self._watched(args, kwargs, done)
        except BaseException:
            for hook in hooks_of(self, "_forward_hooks"):
                if hook.always_call and id(hook) not in done:
                    _followed(self, hook, args, kwargs, None)
            raise

    def _watched(self, args: tuple[Any, ...], kwargs: dict[str, Any], done: set[int]) -> Any:
        """Forward, its hooks, and gates for the gradients if somebody asked for them."""
        watch = None
        pre, after = hooks_of(self, "_backward_pre_hooks"), hooks_of(self, "_backward_hooks")
        if pre or after:
            watch = BackwardCall(self, pre, after)
            args = watch.arguments(args)
        out = self.forward(*args, **kwargs)
        for hook in hooks_of(self, "_forward_hooks"):
            done.add(id(hook))
            out = _followed(self, hook, args, kwargs, out)
        return out if watch is None else watch.results(out)

    # ---- hooks ---------------------------------------------------------------------

    def _add_hook(self, hooks: list[Any], entry: Any, prepend: bool) -> RemovableHandle:
        hooks.insert(0 if prepend else len(hooks), entry)
        structure.bump()
        return RemovableHandle(hooks, entry)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:  # fmt: skip
        """Call ``hook(module, args[, kwargs], output)`` after forward; its result replaces output.

        ``always_call``: also when forward raises (the output is None then).
        """
        entry = ForwardHook(hook, with_kwargs, always_call)
        return self._add_hook(self._forward_hooks, entry, prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args[, kwargs])`` before forward; its result replaces them."""
        return self._add_hook(self._forward_pre_hooks, ForwardHook(hook, with_kwargs), prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)``; its result replaces ``grad_input``."""
        return self._add_hook(self._backward_hooks, BackwardHook(hook), prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before the module's own backward."""
        return self._add_hook(self._backward_pre_hooks, BackwardHook(hook), prepend)

    register_backward_hook = register_full_backward_hook

    # ---- modes, dtypes, gradients --------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Training mode for the whole tree (dropout on, batch statistics)."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode for the whole tree."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask (or stop asking) for gradients of every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of every parameter (or set them to 0)."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            else:
                fill_with_zeros(parameter)

    def to(
        self,
        *args: Any,
        dtype: DType | None = None,
        device: Any = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> Self:
        """Parameters and buffers on another device, floating-point ones in another dtype."""
        for arg in args:
            if isinstance(arg, (DType, type)):
                dtype = need_dtype(arg)
            elif isinstance(arg, Tensor):
                dtype, device = arg.dtype, arg.device
            elif not isinstance(arg, bool):
                device = arg
        if device is not None:
            wait = not (non_blocking or True in args)
            self._apply(lambda t: moved(t, device, wait))
        if dtype is None:
            return self
        if not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(f"a module converts to floating-point dtypes only, not {dtype.name}")
        return self._converted(dtype)

    def _converted(self, dtype: DType) -> Self:
        return self._apply(lambda t: cast(t, dtype) if t.dtype.is_floating_point else t)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Every parameter, its gradient and every buffer become ``fn`` of themselves."""
        for module in self.modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is None:
                    continue
                held = tensor._grad
                tensor.data = fn(tensor.detach())
                if isinstance(held, Tensor):
                    tensor.grad = fn(held.detach())
        return self

    def type(self, dst_type: DType) -> Self:
        """Every parameter and buffer in ``dst_type``."""
        return self._apply(lambda t: cast(t, dst_type))

    def float(self) -> Self:
        """In float32."""
        return self._converted(T.float32)

    def double(self) -> Self:
        """In float64."""
        return self._converted(T.float64)

    def half(self) -> Self:
        """In float16."""
        return self._converted(T.float16)

    def bfloat16(self) -> Self:
        """In bfloat16."""
        return self._converted(T.bfloat16)

    def cpu(self) -> Self:
        """On the CPU."""
        return self.to("cpu")

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """On another device, every parameter and buffer zeros."""
        for module in self.modules() if recurse else [self]:
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    tensor.data = tensor.new_zeros(tensor.shape, device=device)
        return self

    def share_memory(self) -> Self:
        """Parameters and buffers in memory that processes share; see ``Tensor.share_memory_``."""
        return self._apply(lambda t: t.share_memory_())

    def cuda(self, device: Any = None) -> Self:
        """On a CUDA device."""
        return self.to("cuda" if device is None else device)

    def xpu(self, device: Any = None) -> Self:
        """On a device of Intel's; an error says that there is none."""
        return self.to("xpu" if device is None else device)

    # ---- printing ------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What to print between the parentheses."""
        return ""

    def _get_name(self) -> str:
        return self.__class__.__name__

    def __repr__(self) -> str:
        lines = [
            f"({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self._modules.items()
        ]
        extra = self.extra_repr()
        if not lines and "\n" not in extra:
            return f"{self._get_name()}({extra})"
        head = extra.split("\n") if extra else []
        return f"{self._get_name()}(\n  " + "\n  ".join([*head, *lines]) + "\n)"


def _prepared(
    module: Module, hook: ForwardHook, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments after one forward pre-hook."""
    if not hook.with_kwargs:
        changed = hook.function(module, args)
        if changed is not None:
            args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs
    changed = hook.function(module, args, kwargs)
    if changed is None:
        return args, kwargs
    if not (isinstance(changed, tuple) and len(changed) == 2):
        raise GraphFlowError(
            "a forward pre-hook with keyword arguments must return None or (args, kwargs)"
        )
    return changed


watch.module_types.append(Module)


def _followed(
    module: Module, hook: ForwardHook, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> Any:
    """The result after one forward hook."""
    if hook.with_kwargs:
        changed = hook.function(module, args, kwargs, out)
    else:
        changed = hook.function(module, args, out)
    return out if changed is None else changed
