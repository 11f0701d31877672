"""The tree a module is: its parameters, buffers and sub-modules, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from graphflow.assigned import HIDDEN
from graphflow.errors import GraphFlowError
from graphflow.mode import mode, structure
from graphflow.nn.parameter import Buffer, Parameter
from graphflow.tensor import Tensor

_TABLES = ("_parameters", "_buffers", "_modules")


def _member(value: Any) -> Any:
    """``value``, or the module that it is the compiled form of, which is compiled from now on."""
    if isinstance(value, (Tensor, ModuleTree)):
        return value  # a tensor would import all of its methods to say that it has none
    install = getattr(type(value), "install", None)
    return value if install is None else install(value)


class ModuleTree:
    """Attributes that are parameters, buffers or modules are kept in tables of their own."""

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]
    _transient: set[str]

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"], own["_buffers"], own["_modules"] = {}, {}, {}
        own["_transient"] = set()

    # ---- attributes ----------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in _TABLES:
            members = own.get(table)
            if members is not None and name in members:
                value = members[name]
                if mode.tracer is not None:
                    mode.tracer.read_member(self, members, name, value)
                return value
        hidden = own.get(HIDDEN)
        if hidden is not None and name in hidden:
            if mode.tracer is not None:
                mode.tracer.assigned.read(self, name)
            return hidden[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        own, value = self.__dict__, _member(value)
        if "_modules" not in own:
            if isinstance(value, (Parameter, Buffer, ModuleTree)):
                raise AttributeError(
                    f"assign {name!r} after super().__init__() has been called in "
                    f"{type(self).__name__}.__init__"
                )
            object.__setattr__(self, name, value)
            return
        if mode.tracer is not None:
            mode.tracer.assigned.note(mode.tracer, self, name, value)
        table = self._table_for(name, value)
        if table is not None:
            own.pop(name, None)
            table[name] = value
            structure.bump()
        else:
            if own.get(name, self) is not value:
                number = name in getattr(type(self), "run_time", ()) and name in own
                number = number and (own[name] == 0) is (value == 0)
                (structure.revalue if number else structure.bump)()
            object.__setattr__(self, name, value)

    def _table_for(self, name: str, value: Any) -> dict[str, Any] | None:
        own = self.__dict__
        tables: tuple[dict[str, Any], ...] = tuple(own[table] for table in _TABLES)
        if isinstance(value, Parameter):
            wanted = 0
        elif isinstance(value, Buffer):
            wanted = 1
            (self._transient.discard if value.persistent else self._transient.add)(name)
        elif isinstance(value, ModuleTree):
            wanted = 2
        else:
            holder = next((t for t in tables if name in t), None)
            allowed = value is None or (holder is tables[1] and isinstance(value, Tensor))
            if holder is not None and not allowed:
                kinds = ("parameter", "buffer", "module")
                kind = kinds[next(i for i, t in enumerate(tables) if t is holder)]
                raise TypeError(
                    f"cannot assign {type(value).__name__} to {name!r}: it is a {kind} "
                    "(or None) here"
                )
            return holder
        for index, table in enumerate(tables):
            if index != wanted:
                table.pop(name, None)
        return tables[wanted]

    def __delattr__(self, name: str) -> None:
        structure.bump()
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._transient.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        found = [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]
        return sorted({name for name in found if not name[0].isdigit()})

    # ---- registration --------------------------------------------------------------

    def _check_name(self, name: Any, table: dict[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a member's name must be a string, not {type(name).__name__}")
        if "." in name or not name:
            raise KeyError(f"a member's name must not be empty or contain '.': {name!r}")
        if name not in table and hasattr(self, name):
            raise KeyError(f"attribute {name!r} already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter (None reserves the name)."""
        self._check_name(name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot register {type(param).__name__} as parameter {name!r}: "
                "it must be an nn.Parameter or None"
            )
        if param is not None and not param.is_leaf:
            raise GraphFlowError(f"parameter {name!r} must be a leaf tensor, without history")
        self._parameters[name] = param
        structure.bump()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained; ``persistent`` puts it in state_dict."""
        self._check_name(name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot register {type(tensor).__name__} as buffer {name!r}: "
                "it must be a tensor or None"
            )
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)
        structure.bump()

    def add_module(self, name: str, module: Any) -> None:
        """Add a sub-module under ``name``."""
        module = _member(module)
        if module is not None and not isinstance(module, ModuleTree):
            made = isinstance(module, type) and issubclass(module, ModuleTree)
            hint = f"; it is a class of them: call it, {module.__name__}(...)" if made else ""
            raise TypeError(f"{module!r} of type {type(module).__name__} is not a Module{hint}")
        self._check_name(name, self._modules)
        self._modules[name] = module
        structure.bump()

    def register_module(self, name: str, module: Any) -> None:
        """The same as :meth:`add_module`."""
        self.add_module(name, module)

    # ---- paths ---------------------------------------------------------------------

    def get_submodule(self, target: str) -> Any:
        """The sub-module at a dotted path ('' is the module itself)."""
        found: Any = self
        for part in target.split(".") if target else ():
            found = getattr(found, part)
            if not isinstance(found, ModuleTree):
                raise AttributeError(f"{part!r} in {target!r} is not a module")
        return found

    def set_submodule(self, target: str, module: Any) -> None:
        """Put ``module`` at a dotted path."""
        if not target:
            raise ValueError("the module itself cannot be replaced: give a path")
        path, _, name = target.rpartition(".")
        setattr(self.get_submodule(path), name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        found: Parameter = self._member(target, "_parameters")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path."""
        found: Tensor = self._member(target, "_buffers")
        return found

    def _member(self, target: str, table: str) -> Any:
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path).__dict__[table].get(name)
        if found is None:
            raise AttributeError(f"{target!r} is not one of the {table.strip('_')}")
        return found

    # ---- traversal -----------------------------------------------------------------

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Every module of the tree with its dotted path, shared ones once."""
        seen: set[Any] = set() if memo is None else memo
        stack: list[tuple[str, Any]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if remove_duplicate and module in seen:
                continue
            seen.add(module)
            yield path, module
            children = [(n, m) for n, m in module._modules.items() if m is not None]
            stack.extend((f"{path}.{n}" if path else n, m) for n, m in reversed(children))

    def modules(self) -> Iterator[Any]:
        """Every module of the tree."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """The direct sub-modules with their names, shared ones once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Any]:
        """The direct sub-modules."""
        return (m for _, m in self.named_children())

    def _named(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules: Any = [(prefix, self)]
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in modules:
            for name, value in module.__dict__[table].items():
                if value is None or (remove_duplicate and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, shared ones once."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, shared ones once."""
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names, shared ones once."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers."""
        return (value for _, value in self.named_buffers(recurse=recurse))

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers with dotted names: what a compiled program captures."""
        yield from self.named_parameters()
        yield from self.named_buffers()

    def apply(self, fn: Any) -> Self:
        """Call ``fn`` on every sub-module, children first, then on the module itself."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self
