"""What a function reads from outside: closure cells, globals, and what hangs on them.

A compiled call compares each of these with what it was when the program was
traced, by identity: a few dozen nanoseconds each.  Followed are the functions
it calls, attributes of the user's own objects, classes and modules (those the
code names), dictionaries and lists.  What is inside an ``nn.Module`` or an
optimiser announces its changes by itself (:mod:`graphflow.guards`).
"""

from __future__ import annotations

import dis
import functools
import operator
import sys
import types
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import numpy as np

from graphflow.assigned import REPLACED
from graphflow.cell import Cell
from graphflow.errors import TraceError
from graphflow.records import dataclass
from graphflow.tensor import Tensor

PLAIN = (bool, int, float, str, bytes, type(None), tuple, frozenset)
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_DEPTH = 4
"""How many containers or objects deep a value is followed."""


@dataclass(frozen=True, slots=True)
class Read:
    """A name the function reaches: how to read it again, and what it was."""

    holder: Any
    key: Any
    value: Any
    name: str

    def now(self) -> Any:
        """The value at this moment (a closure cell, or an entry of a namespace)."""
        if self.key is not None:
            return self.holder.get(self.key)
        try:
            return self.holder.cell_contents
        except ValueError:  # deleted: whoever runs the function is told so by itself
            return None

    def holds(self) -> bool:
        """True while the very same object is found."""
        return self.now() is self.value

    def change(self) -> tuple[str, Any, Any]:
        """What differs now: its name, the value before, the value after."""
        now = self.now()
        if not isinstance(self.holder, Contents):
            return self.name, self.value, now
        before, after = (dict(_entries(self.holder.kind, values)) for values in (self.value, now))
        for key in [*before, *after]:
            old, new = before.get(key), after.get(key)
            if old is not new:
                return f"{self.name}[{key!r}]", old, new
        return self.name, self.value, now


class Attributes:
    """An object's attributes, read like a mapping."""

    __slots__ = ("object",)

    def __init__(self, object: Any) -> None:
        self.object = object

    def get(self, name: str) -> Any:
        """The attribute, or None without one."""
        return getattr(self.object, name, None)


class Contents:
    """The items of a list or dictionary; the same tuple as long as they are the same."""

    __slots__ = ("before", "kind", "source")

    def __init__(self, source: Any) -> None:
        self.source, self.kind = source, type(source)
        self.before = _flat(source)

    def get(self, key: str) -> Any:
        """The tuple of before if every item is still the same object, else a new one."""
        before, now = self.before, _flat(self.source)
        same = len(before) == len(now) and all(map(operator.is_, before, now))
        return before if same else now


class ArrayForm:
    """Shape, dtype and place of a NumPy array: resized in place, it needs another program."""

    __slots__ = ("array", "before")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.before = _form(array)

    def get(self, key: str) -> Any:
        """The form of before if nothing moved, else a new one."""
        now = _form(self.array)
        return self.before if now == self.before else now


def _form(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return (str(array.dtype), array.shape, array.strides, array.__array_interface__["data"][0])


def array_read(array: np.ndarray[Any, Any], name: str) -> Read:
    """The read that notices an array resized or moved in place."""
    holder = ArrayForm(array)
    return Read(holder, "form", holder.before, name)


def contents_read(source: Any, name: str) -> Read:
    """The read that notices another item in a list or dictionary."""
    holder = Contents(source)
    return Read(holder, "contents", holder.before, name)


def _flat(source: Any) -> tuple[Any, ...]:
    return (*source, *source.values()) if isinstance(source, dict) else tuple(source)


def _entries(kind: type, values: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    if issubclass(kind, dict):
        half = len(values) // 2
        return zip(values[:half], values[half:])
    return iter(enumerate(values))


class Reach:
    """Everything ``function`` reads: ``reads``, and the tensors and modules it finds by name."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...] = ()) -> None:
        self.reads: list[Read] = []
        self.roots: list[tuple[str, Any]] = []
        self._seen: set[Any] = set()
        self._pending: list[tuple[types.FunctionType, Any, str]] = []
        self.loaded: set[str] = set()
        """Names of attributes that the code reads, and does not only write."""
        self._members: list[Read] = []
        self._enter(function, None, "")
        for value in arguments:
            if isinstance(value, (Tensor, type)):
                continue  # a tensor would import everything it can do to answer hasattr
            if hasattr(type(value), "named_tensors"):
                self._module(type(value).__name__.lower(), value)
        while self._pending:
            self._function(*self._pending.pop())

    def watched(self) -> list[Read]:
        """The reads worth comparing on every call: values, not imported modules or classes.

        What the function itself changed while it was traced (a counter, a list it
        appends to) is left out: that happens when tracing only.
        """
        members = [r for r in self._members if r.key in self.loaded]
        found = [*self.reads, *members]
        values = [r for r in found if not isinstance(r.value, (types.ModuleType, type))]
        return [r for r in values if r.holds()]

    def check_carried(self, known: Container[Cell]) -> None:
        """Refuse tensors whose memory the trace knows, where a tensor of the trace lies now.

        That is a value carried from call to call by a name or a container, which stays what the
        first call began with.
        """
        for read in self.reads:
            if not read.holds():
                name, before, now = read.change()
                made = isinstance(now, Tensor) and now._cell.tracer is not None
                if made and isinstance(before, Tensor) and before._cell in known:
                    raise TraceError(
                        f"a compiled function reads the tensor {name!r} and puts another one in "
                        "its place, which happens when it is traced only; write to it in place "
                        "(copy_()), return the new one, or make it an attribute of an nn.Module"
                    )

    # ---- functions -----------------------------------------------------------------

    def _enter(self, value: Any, owner: Any, name: str) -> None:
        """Follow a callable later; ``owner`` is what its first parameter is."""
        while isinstance(value, (functools.partial, types.MethodType)):
            if isinstance(value, types.MethodType):
                owner, value = value.__self__, value.__func__
            else:
                value = value.func
        original = getattr(value, "original", None)
        if not isinstance(value, types.FunctionType) and callable(original):
            self._enter(original, owner, name)  # a compiled function inside another
            return
        if isinstance(value, types.FunctionType):
            label = name or (type(owner).__name__.lower() if owner is not None else "")
            if not _is_ours(value) and ("f", id(value), id(owner)) not in self._seen:
                self._seen.add(("f", id(value), id(owner)))
                self._pending.append((value, owner, label))
                self._enter(getattr(value, "__wrapped__", None), owner, name)
        elif value is not None and not isinstance(value, type):
            self._callable_object(value, name)
        if owner is not None and hasattr(type(owner), "named_tensors"):
            self._module(name or type(owner).__name__.lower(), owner)

    def _callable_object(self, value: Any, name: str) -> None:
        label = name or type(value).__name__.lower()
        if hasattr(type(value), "named_tensors"):
            self._module(label, value)
        call = getattr(type(value), "__call__", None)  # noqa: B004
        if isinstance(call, types.FunctionType):
            self._enter(call, value, label)

    def _function(self, function: types.FunctionType, owner: Any, label: str) -> None:
        code = function.__code__
        free, attributes, texts, loaded = _names_in(code)
        self.loaded.update(loaded, texts)
        if not {"hasattr", "getattr"} & set(free):
            texts = ()
        names = (*attributes, *texts)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                continue  # a free variable that is not bound yet
            self._read(Read(cell, None, value, name), names, 0)
        namespace = function.__globals__
        for name in dict.fromkeys(free):
            if name in namespace:
                self._read(Read(namespace, name, namespace[name], name), names, 0)
        if owner is not None:
            self._object(label, owner, names, texts, 0)

    # ---- values --------------------------------------------------------------------

    def _read(self, read: Read, names: Sequence[str], depth: int) -> None:
        key = (id(read.holder), read.key)
        if key not in self._seen:
            self._seen.add(key)
            self.reads.append(read)
        self._value(read.name, read.value, names, depth)

    def _value(self, name: str, value: Any, names: Sequence[str], depth: int) -> None:
        if isinstance(value, Tensor):
            self.roots.append((name, value))
        elif hasattr(type(value), "named_tensors"):
            self._module(name, value)
            self._module_attributes(name, value, names)
        elif isinstance(value, _FUNCTIONS) or hasattr(type(value), "original"):
            self._enter(value, None, "")
        elif depth < _DEPTH and isinstance(value, (dict, list, tuple)):
            self._container(name, value, names, depth)
        elif depth < _DEPTH and _is_users(value):
            self._object(name, value, names, (), depth)

    def _container(self, name: str, value: Any, names: Sequence[str], depth: int) -> None:
        if type(value) in (dict, list):
            if ("c", id(value)) in self._seen:
                return
            self._seen.add(("c", id(value)))
            self.reads.append(contents_read(value, name))
        for key, item in _entries(type(value), _flat(value)):
            if not isinstance(item, PLAIN) or isinstance(item, tuple):
                self._value(f"{name}[{key!r}]", item, names, depth + 1)

    def _object(
        self, name: str, value: Any, names: Sequence[str], texts: Sequence[str], depth: int
    ) -> None:
        """The attributes of a user's object, class or module that the code names."""
        if hasattr(type(value), "named_tensors"):
            self._module_attributes(name, value, names)
            return
        own = getattr(value, "__dict__", None)
        kind = value if isinstance(value, type) else type(value)
        for attribute in dict.fromkeys(names):
            holder: Any = own if type(own) is dict and attribute in own else Attributes(value)
            found = getattr(kind, attribute, None)
            if isinstance(found, (types.FunctionType, property, functools.cached_property)):
                method = getattr(found, "fget", None) or getattr(found, "func", None) or found
                self._enter(method, value, name)
            elif hasattr(value, attribute) or attribute in texts:
                if not isinstance(value, types.ModuleType) or self._module_value(holder, attribute):
                    read = Read(holder, attribute, holder.get(attribute), f"{name}.{attribute}")
                    self._read(read, names, depth + 1)

    def _module_value(self, holder: Any, attribute: str) -> bool:
        """Whether a Python module's attribute can be expected to change."""
        return isinstance(holder.get(attribute), (*PLAIN, dict, list, types.FunctionType))

    # ---- nn.Module -----------------------------------------------------------------

    def _module(self, name: str, module: Any) -> None:
        """A tree of modules: the forward functions the user wrote, and what they read."""
        if ("m", id(module)) in self._seen:
            return
        self._seen.add(("m", id(module)))
        self.roots.append((name, module))
        inner = module.modules() if hasattr(module, "modules") else ()
        for part in (module, *inner):
            forward = getattr(type(part), "forward", None)
            if isinstance(forward, types.FunctionType):
                self._enter(forward, part, name)
            self._enter(part.__dict__.get("forward"), None, name)  # one of its own

    def _module_attributes(self, name: str, module: Any, names: Sequence[str]) -> None:
        """What lies on a module and is no member; plain values are guarded."""
        for attribute in dict.fromkeys(names):
            found = getattr(type(module), attribute, None)
            if isinstance(found, (types.FunctionType, property)):
                self._enter(getattr(found, "fget", found), module, name)
        named = set(names)
        for part in module.modules() if hasattr(module, "modules") else (module,):
            own = part.__dict__
            for attribute in sorted(named & own.keys()):
                self._member(own, attribute, f"{name}.{attribute}")
                if not attribute.startswith("_"):
                    self._value(f"{name}.{attribute}", own[attribute], names, 1)

    def _member(self, own: dict[str, Any], attribute: str, name: str) -> None:
        key, value = (id(own), attribute), own[attribute]
        noticed = isinstance(value, PLAIN) or attribute in own.get(REPLACED, ())
        if not noticed and key not in self._seen:
            self._seen.add(key)
            self._members.append(Read(own, attribute, value, name))


def _is_ours(value: Any) -> bool:
    return _package(value) == "graphflow"


def _package(value: Any) -> str:
    name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return str(name or "").partition(".")[0]


def _is_users(value: Any) -> bool:
    """True for objects, classes and modules that the user's own code defines."""
    if isinstance(value, (*PLAIN, np.ndarray, np.generic, types.BuiltinFunctionType)):
        return False
    owner = value if isinstance(value, (type, types.ModuleType)) else type(value)
    package = _package(owner)
    foreign = package in ("graphflow", "numpy", "builtins") or package in sys.stdlib_module_names
    return not foreign or package == "__main__"


@functools.lru_cache(maxsize=1024)
def _names_in(code: types.CodeType) -> tuple[tuple[str, ...], ...]:
    """Names of globals and of attributes in ``code``, its strings that could be names, and the
    attributes that it reads."""
    free, attributes, loaded = [], [], []
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            free.append(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
            attributes.append(step.argval)
            if step.opname != "STORE_ATTR":
                loaded.append(step.argval)
    texts = [c for c in code.co_consts if isinstance(c, str) and c.isidentifier()]
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            for mine, more in zip((free, attributes, texts, loaded), _names_in(inner)):
                mine += more
    return tuple(free), tuple(attributes), tuple(texts), tuple(loaded)
