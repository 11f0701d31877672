"""The module: a tree of parameters, buffers and sub-modules, as in PyTorch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from graphflow.errors import GraphFlowError
from graphflow.ir.types import DType
from graphflow.mode import mode, structure
from graphflow.nn.parameter import Parameter
from graphflow.promotion import cast
from graphflow.tensor import RemovableHandle, Tensor

M = TypeVar("M", bound="Module")


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of every layer and model: define ``__init__`` and ``forward``.

    Attributes that are :class:`Parameter`, tensors registered by
    ``register_buffer`` and other modules make up the tree.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"], own["_buffers"], own["_modules"] = {}, {}, {}
        own["_transient"] = set()
        own["_forward_hooks"], own["_forward_pre_hooks"] = [], []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; define it in a sub-class."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Hooks, then :meth:`forward`."""
        tracer = mode.tracer
        if tracer is None:
            return self._run(args, kwargs)
        tracer.enter_module(self)
        try:
            return self._run(args, kwargs)
        except GraphFlowError as error:
            tracer.locate(error)
            raise
        finally:
            tracer.leave_module()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for pre in list(self._forward_pre_hooks):
            changed = pre(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        out = self.forward(*args, **kwargs)
        for hook in list(self._forward_hooks):
            changed = hook(self, args, out)
            if changed is not None:
                out = changed
        return out

    # ---- attributes ----------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            members = own.get(table)
            if members is not None and name in members:
                value = members[name]
                if mode.tracer is not None:
                    mode.tracer.read_member(self, members, name, value)
                return value
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_modules" not in own:
            if isinstance(value, (Parameter, Module)):
                raise AttributeError(
                    f"assign {name!r} after super().__init__() has been called in "
                    f"{type(self).__name__}.__init__"
                )
            object.__setattr__(self, name, value)
            return
        table = self._table_for(name, value)
        if table is not None:
            own.pop(name, None)
            table[name] = value
            structure.bump()
        else:
            if own.get(name, self) is not value:
                number = name in getattr(type(self), "run_time", ()) and name in own
                (structure.revalue if number else structure.bump)()
            object.__setattr__(self, name, value)

    def _table_for(self, name: str, value: Any) -> dict[str, Any] | None:
        own = self.__dict__
        tables: tuple[dict[str, Any], ...] = (own["_parameters"], own["_buffers"], own["_modules"])
        if isinstance(value, Parameter):
            wanted = 0
        elif isinstance(value, Module):
            wanted = 2
        else:
            holder = next((t for t in tables if name in t), None)
            if holder is not None and value is not None and holder is not tables[1]:
                raise TypeError(
                    f"cannot assign {type(value).__name__} to {name!r}: it is a "
                    f"{'parameter' if holder is tables[0] else 'module'} (or None) here"
                )
            return holder
        for index, table in enumerate(tables):
            if index != wanted:
                table.pop(name, None)
        return tables[wanted]

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                structure.bump()
                return
        object.__delattr__(self, name)
        structure.bump()

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter (None reserves the name)."""
        self._parameters[name] = param
        structure.bump()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained; ``persistent`` puts it in state_dict."""
        self.__dict__.pop(name, None)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)
        structure.bump()

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a sub-module under ``name``."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{module!r} of type {type(module).__name__} is not a Module")
        self._modules[name] = module
        structure.bump()

    register_module = add_module

    def get_submodule(self, target: str) -> Module:
        """The sub-module at a dotted path ('' is the module itself)."""
        found: Any = self
        for part in target.split(".") if target else ():
            found = getattr(found, part)
        if not isinstance(found, Module):
            raise AttributeError(f"{target!r} is not a module")
        return found

    # ---- traversal -----------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Every module of the tree with its dotted path, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            children = [(n, m) for n, m in module._modules.items() if m is not None]
            stack.extend((f"{path}.{n}" if path else n, m) for n, m in reversed(children))

    def modules(self) -> Iterator[Module]:
        """Every module of the tree."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct sub-modules with their names."""
        return ((n, m) for n, m in self._modules.items() if m is not None)

    def children(self) -> Iterator[Module]:
        """The direct sub-modules."""
        return (m for _, m in self.named_children())

    def _named(self, table: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in module.__dict__[table].items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, shared ones once."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, shared ones once."""
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names."""
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers."""
        return (value for _, value in self.named_buffers(recurse=recurse))

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers with dotted names: what a compiled program captures."""
        yield from self.named_parameters()
        yield from self.named_buffers()

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` on every sub-module, children first, then on the module itself."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- modes, dtypes, gradients --------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Training mode for the whole tree (dropout on, batch statistics)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Evaluation mode for the whole tree."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Ask (or stop asking) for gradients of every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of every parameter (or set them to 0)."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = parameter.grad.new_zeros(tuple(parameter.shape))

    def to(self: M, *args: Any, dtype: DType | None = None, device: Any = None) -> M:
        """Floating-point parameters and buffers in another dtype (the device is the CPU)."""
        from graphflow.device import device as as_device

        for arg in args:
            if isinstance(arg, DType):
                dtype = arg
            elif not isinstance(arg, bool):
                device = arg
        if device is not None:
            as_device(device)
        return self if dtype is None else self._converted(dtype)

    def _converted(self: M, dtype: DType) -> M:
        for module in self.modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor.dtype.is_floating_point:
                    tensor.data = cast(tensor.detach(), dtype)
        return self

    def float(self: M) -> M:
        """In float32."""
        from graphflow.ir.types import float32

        return self._converted(float32)

    def double(self: M) -> M:
        """In float64."""
        from graphflow.ir.types import float64

        return self._converted(float64)

    def cpu(self: M) -> M:
        """On the CPU."""
        return self

    # ---- state ---------------------------------------------------------------------

    def state_dict(self, prefix: str = "") -> OrderedDict[str, Tensor]:
        """Every parameter and persistent buffer by dotted name (sharing memory)."""
        found: OrderedDict[str, Tensor] = OrderedDict()
        for name, tensor in self._state(prefix):
            found[name] = tensor.detach()
        return found

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        for path, module in self._all_paths(prefix):
            for name, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None and name not in module._transient:
                    yield (f"{path}.{name}" if path else name), value

    def _all_paths(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix.rstrip("."), self
        for name, child in self.named_children():
            yield from child._all_paths(f"{prefix.rstrip('.')}.{name}".lstrip("."))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy values in by name; nothing is written unless everything fits."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"a state must map names to tensors, not {type(state_dict).__name__}")
        own = dict(self._state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = [
            f"shape of {name!r} is {list(value.shape)} in the state, {list(own[name].shape)} here"
            for name, value in state_dict.items()
            if name in own and tuple(value.shape) != tuple(own[name].shape)
        ]
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        if problems:
            raise GraphFlowError(
                f"load_state_dict for {type(self).__name__} failed: {'; '.join(problems)}"
            )
        for name, value in state_dict.items():
            if name in own:
                own[name].detach().copy_(value)
        return IncompatibleKeys(missing, unexpected)

    # ---- hooks and printing --------------------------------------------------------

    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after forward; its result replaces the output."""
        self._forward_hooks.append(hook)
        structure.bump()
        return RemovableHandle(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, args)`` before forward; its result replaces the arguments."""
        self._forward_pre_hooks.append(hook)
        structure.bump()
        return RemovableHandle(self._forward_pre_hooks, hook)

    def extra_repr(self) -> str:
        """What to print between the parentheses."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        lines = [
            f"({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self.named_children()
        ]
        extra = self.extra_repr()
        if not lines:
            return f"{self._get_name()}({extra})"
        head = [extra] if extra else []
        return f"{self._get_name()}(\n  " + "\n  ".join([*head, *lines]) + "\n)"
