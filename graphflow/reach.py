"""Everything a function reads from outside: closure cells, globals, and what hangs on them.

Followed are the functions it calls and attributes of the user's own objects, classes and modules,
by the paths that the code names (:mod:`graphflow.paths`).  An object that code does more with than
look up its attributes may be handed on, found again in a container, come back from a call: of such
*open* ones every attribute counts that any of the code reads of it knows not what.  What is inside
an ``nn.Module`` or an optimiser announces its changes by itself (:mod:`graphflow.guards`).
"""

from __future__ import annotations

import functools
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.assigned import REPLACED
from graphflow.cell import Cell
from graphflow.errors import TraceError
from graphflow.paths import names_in
from graphflow.reads import PLAIN, Attributes, Read, contents_read, entries, flat, numbers_read
from graphflow.records import replace
from graphflow.tensor import Tensor

_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_SMALL = 4096
"""Bytes up to which NumPy arrays are compared at every call."""
_MOST = 2000
"""Open objects and containers that are looked at, at most."""


class Reach:
    """``reads``, and in ``roots`` the tensors and modules that the function finds by name.

    ``args`` and ``kwargs`` are what it is given: of an argument its attributes are read, while the
    argument itself is told apart by the call's signature.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.reads: list[Read] = []
        self.roots: list[tuple[str, Any]] = []
        self.owners: list[tuple[str, Any]] = []
        """Modules with methods that may run by themselves, not in a call of the module."""
        self._seen: set[Any] = set()
        self._functions: list[tuple[types.FunctionType, Any, str]] = []
        self._values: list[tuple[str, Any]] = []
        self._loose: dict[str, bool] = {}
        """Attributes that are read of objects unknown; whether the code does more than call."""
        self._texts: dict[str, None] = {}
        self._open: dict[int, tuple[str, Any]] = {}
        self._looked: dict[int, tuple[int, int, int]] = {}
        """By the id of an object: what was known when it was looked all over."""
        self._members: list[Read] = []
        self._arrays: list[Read] = []
        self._count = 0
        self._enter(function, None, "")
        self._top = self._functions[0][0] if self._functions else None
        self._arguments = args, dict(kwargs or {})
        if self._top is not getattr(function, "__func__", function):
            self._use_arguments()
        self._follow_all()

    def watched(self, by_reference: Container[int] = ()) -> list[Read]:
        """The reads worth comparing on every call: values, not imported modules or classes.

        What the function itself changed while it was traced (a counter, a list it
        appends to) is left out: that happens when tracing only.  So are NumPy arrays, given by
        their ids, of which a program reads the memory.
        """
        arrays = (r for r in self._arrays if id(r.holder.array) not in by_reference)
        found = [*self.reads, *self._members, *arrays]
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

    def _follow_all(self) -> None:
        """Until nothing is new: functions, values, and loose names of open objects."""
        looked = -1, (0, 0, 0)
        while True:
            while self._functions or self._values:
                while self._functions:
                    self._function(*self._functions.pop())
                if self._values:
                    self._use_now(*self._values.pop())
            known = len(self._loose), sum(self._loose.values()), len(self._texts)
            if looked == (len(self._open), known):
                return
            looked = len(self._open), known
            for name, value in list(self._open.values()):
                if self._looked.get(id(value)) != known:
                    self._look_all_over(name, value, known)

    def _enter(self, value: Any, owner: Any, name: str) -> None:
        """Follow a callable later; ``owner`` is what its first parameter is."""
        while isinstance(value, (functools.partial, types.MethodType)):
            if isinstance(value, types.MethodType):
                owner, value = value.__self__, value.__func__
            else:
                for given in (*value.args, *value.keywords.values()):
                    self._use(_kind_name(given), given)
                value = value.func
        original = getattr(value, "original", None)
        if not isinstance(value, types.FunctionType) and callable(original):
            self._enter(original, owner, name)  # a compiled function inside another
            return
        if isinstance(value, types.FunctionType):
            label = name or (_kind_name(owner) if owner is not None else "")
            if not _is_ours(value) and self._is_new("f", value, owner):
                self._functions.append((value, owner, label))
                self._enter(getattr(value, "__wrapped__", None), owner, name)
        elif value is not None and not isinstance(value, type):
            self._callable_object(value, name)
        if _is_module(owner):
            self._module(name or _kind_name(owner), owner)

    def _callable_object(self, value: Any, name: str) -> None:
        label = name or _kind_name(value)
        if _is_module(value):
            self._module(label, value)
        call = getattr(type(value), "__call__", None)  # noqa: B004
        if isinstance(call, types.FunctionType):
            self._enter(call, value, label)

    def _function(self, function: types.FunctionType, owner: Any, label: str) -> None:
        names = names_in(function.__code__)
        for name, more in names.loose:
            self._learn(name, more)
        self._texts.update(dict.fromkeys(names.texts))
        found = self._outer(function)
        found.update(given := self._given(function, owner, label))
        if function is self._top or function.__name__ != "forward":
            self.owners += [pair for pair in given.values() if _is_module(pair[1])]
        for path, used in names.paths:
            root = (path.is_global, path.variable)
            if root in found:
                self._follow(*found[root], path.attributes, used)
            elif not path.is_global:
                for name in path.attributes:
                    self._learn(name, True)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._use(_kind_name(value), value)
        for name in names.inherited:
            self._methods(name, owner, label)

    def _outer(self, function: types.FunctionType) -> dict[tuple[bool, str], tuple[str, Any]]:
        """The variables from outside: by whether they are global, and by name."""
        code, namespace = function.__code__, function.__globals__
        found: dict[tuple[bool, str], tuple[str, Any]] = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                continue  # a free variable that is not bound yet
            self._read(Read(cell, None, value, name), cell)
            found[False, name] = name, value
        for path, _ in names_in(code).paths:
            name = path.variable
            if path.is_global and name in namespace:
                self._read(Read(namespace, name, namespace[name], name), namespace)
                found[True, name] = name, namespace[name]
        return found

    def _given(
        self, function: types.FunctionType, owner: Any, label: str
    ) -> dict[tuple[bool, str], tuple[str, Any]]:
        """The parameters whose values are known: a method's first, and those of the first call."""
        code = function.__code__
        names = code.co_varnames[: code.co_argcount]
        known = {(False, name): (label, owner) for name in names[:1] if owner is not None}
        if function is self._top:
            (args, kwargs), count = self._arguments, len(known)
            named = {**dict(zip(names[count:], args)), **kwargs}
            for name, value in named.items():
                if isinstance(value, (Tensor, np.ndarray)):
                    known[False, name] = name, None  # all it has is of the trace
                elif _is_whole(value):
                    known[False, name] = _kind_name(value), value
            later = args[len(names) - count :]
            self._arguments = later, {n: v for n, v in named.items() if (False, n) not in known}
            self._use_arguments()
        return known

    def _use_arguments(self) -> None:
        """What containers among the arguments hold; they are told apart by what that is."""
        for value in pytree.flatten(self._arguments)[0]:
            if not isinstance(
                value, (Tensor, np.ndarray, type)
            ):  # a tensor would import all it can do
                self._use(_kind_name(value), value)
        self._arguments = (), {}

    # ---- values --------------------------------------------------------------------

    def _is_new(self, *key: Any) -> bool:
        """Whether this is met for the first time; values are told apart by identity."""
        found = (key[0], *(id(part) for part in key[1:]))
        if found in self._seen:
            return False
        self._seen.add(found)
        return True

    def _learn(self, name: str, more: bool) -> None:
        self._loose[name] = self._loose.get(name, False) or more

    def _read(self, read: Read, source: Any) -> None:
        if self._is_new(("read", read.key), source):
            self.reads.append(read)
            self._root(read.name, read.value)

    def _root(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            self.roots.append((name, value))
        elif _is_module(value):
            self._module(name, value)

    def _follow(self, name: str, value: Any, attributes: tuple[str, ...], used: bool) -> None:
        """What a path leads to, beginning with the value of its variable."""
        for place, attribute in enumerate(attributes):
            found = self._attribute(name, value, attribute)
            if found is None:
                if isinstance(value, (*_CONTAINERS, np.ndarray)):
                    self._use(name, value)
                for later in attributes[place + 1 :]:
                    self._learn(later, True)
                return
            name, value = found
        if used:
            self._use(name, value)

    def _use(self, name: str, value: Any) -> None:
        """Look later at a value that code does anything with."""
        if not isinstance(value, PLAIN) or isinstance(value, (tuple, frozenset)):
            self._values.append((name, value))

    def _use_now(self, name: str, value: Any) -> None:
        self._root(name, value)
        if isinstance(value, _FUNCTIONS) or hasattr(type(value), "original"):
            self._enter(value, None, "")
        elif isinstance(value, np.ndarray):
            if value.nbytes <= _SMALL and value.dtype != object and self._is_new("array", value):
                self._arrays.append(numbers_read(value, name))
        elif isinstance(value, _CONTAINERS) and not _is_ours(type(value)):
            self._container(name, value)
        if _is_own(value) and self._has_room("object", value):
            self._open[id(value)] = name, value
            for kind in type(value).__mro__:
                for method in _operators(kind):
                    self._enter(method, value, name)

    def _container(self, name: str, value: Any) -> None:
        if not isinstance(value, (tuple, frozenset)):
            if not self._has_room("container", value):
                return
            self.reads.append(contents_read(value, name))
        elif not self._is_new("container", value):
            return
        for key, item in entries(type(value), flat(value)):
            self._use(f"{name}[{key!r}]", item)

    def _has_room(self, kind: str, value: Any) -> bool:
        """Whether this is new and may be followed; says so where there is too much."""
        if not self._is_new(kind, value):
            return False
        count = self._count = self._count + 1
        if count == _MOST:
            warnings.warn(
                f"a compiled function can reach more than {_MOST} objects and containers; changes "
                "of further ones are not noticed: give it what it needs of them",
                stacklevel=2,
            )
        return count < _MOST

    # ---- attributes ----------------------------------------------------------------

    def _look_all_over(self, name: str, value: Any, known: tuple[int, int, int]) -> None:
        """The loose names among an open object's attributes, a module's parts included.

        ``x.sum()`` does not read a number ``meter.sum``.
        """
        names = {**dict.fromkeys(self._texts, True), **self._loose}
        modules = value.modules() if _is_module(value) and hasattr(value, "modules") else ()
        for part in modules or (value,):
            self._looked[id(part)] = known
            ours = _is_ours(type(part))
            for attribute in names.keys() & part.__dict__.keys() if ours else names:
                more = names[attribute]
                if self._is_new(("loose", attribute, more), part):
                    self._look(name, part, attribute, more)

    def _look(self, name: str, value: Any, attribute: str, numbers: bool) -> None:
        """An attribute that an open object may have; ``numbers`` are plain values."""
        own = getattr(value, "__dict__", {})
        absent = attribute in self._texts and not _is_module(value)
        if attribute in own or absent or any(attribute in vars(k) for k in type(value).__mro__):
            if numbers or not isinstance(own.get(attribute, ""), PLAIN):
                found = self._attribute(name, value, attribute, absent)
                if found is not None:
                    self._use(*found)

    def _attribute(
        self, name: str, value: Any, attribute: str, absent: bool = False
    ) -> tuple[str, Any] | None:
        """The attribute of a user's object, class or module, or one that a user has given to a
        tensor, if it has it; methods are entered.

        ``absent`` ones are watched, too.
        """
        own, label = getattr(value, "__dict__", None), f"{name}.{attribute}"
        if isinstance(value, Tensor):
            if attribute not in value.__dict__:
                return None  # nothing that the user has put there
        elif not (_is_module(value) or _is_users(value)):
            return None
        is_own = type(own) is dict and attribute in own
        if self._is_method(value, attribute, is_own):
            self._methods(attribute, value, name)
            return None
        if _is_module(value):
            return self._member(value, attribute, label)
        read = Read(own if is_own else Attributes(value), attribute, None, label)
        read = replace(read, value=read.now())
        if isinstance(value, types.ModuleType) and not isinstance(read.value, _CHANGING):
            return label, read.value
        if isinstance(read.value, _FUNCTIONS) or hasattr(type(read.value), "original"):
            self._enter(read.value, None, "")  # of a class, it may be made anew each time
        if not read.holds() or not (absent or read.value is not None or _has(value, attribute)):
            return None
        self._read(read, own if is_own else value)
        return label, read.value

    def _is_method(self, value: Any, attribute: str, is_own: bool) -> bool:
        """Whether a class defines it: a property, or a function that nothing else hides."""
        kind = value if isinstance(value, type) else type(value)
        found = getattr(kind, attribute, None)
        if isinstance(found, (types.FunctionType, types.MethodType)):
            return not is_own
        return isinstance(found, (property, functools.cached_property))

    def _methods(self, attribute: str, value: Any, name: str) -> None:
        """Enter what classes define by this name, also below what others call by ``super()``."""
        kind = value if isinstance(value, type) else type(value)
        for part in kind.__mro__:
            found = vars(part).get(attribute)
            owner = None if isinstance(found, staticmethod) or value is kind else value
            if isinstance(found, classmethod):
                owner = kind
            for place in ("fget", "func", "__func__"):
                found = getattr(found, place, found)
            if isinstance(found, types.FunctionType):
                self._enter(found, owner, name)

    # ---- nn.Module -----------------------------------------------------------------

    def _module(self, name: str, module: Any) -> None:
        """A tree of modules: the forward functions the user wrote, and what they read."""
        if not self._is_new("m", module):
            return
        self.roots.append((name, module))
        inner = module.modules() if hasattr(module, "modules") else ()
        parts = [module, *(part for part in inner if self._is_new("m", part))]
        for part in parts:
            forward = getattr(type(part), "forward", None)
            if isinstance(forward, types.FunctionType):
                self._enter(forward, part, name)
            self._enter(part.__dict__.get("forward"), None, name)  # one of its own

    def _member(self, module: Any, attribute: str, name: str) -> tuple[str, Any] | None:
        """What lies on a module; plain values are guarded, and so is what it is made of."""
        own = module.__dict__
        if attribute not in own:
            parts = (own.get(table, {}) for table in ("_modules", "_parameters", "_buffers"))
            part = next((table[attribute] for table in parts if attribute in table), None)
            return None if part is None else (name, part)
        value = own[attribute]
        noticed = isinstance(value, PLAIN) or attribute in own.get(REPLACED, ())
        if not noticed and self._is_new(("read", attribute), own):
            self._members.append(Read(own, attribute, value, name))
        return name, value


def _has(value: Any, attribute: str) -> bool:
    try:
        return hasattr(value, attribute)
    except Exception:  # whatever the object raises, its user will see
        return False


def _is_module(value: Any) -> bool:
    return hasattr(type(value), "named_tensors")


def _is_whole(value: Any) -> bool:
    """Whether an argument is a leaf, and not a container of leaves."""
    leaves = pytree.flatten(value)[0]
    return len(leaves) == 1 and leaves[0] is value


def _kind_name(value: Any) -> str:
    return type(value).__name__.lower()


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
    if owner.__name__ in ("SimpleNamespace", "Namespace"):
        return True  # what scripts keep their options in
    package = _package(owner)
    foreign = package in ("graphflow", "numpy", "builtins") or package in sys.stdlib_module_names
    return not foreign or package == "__main__"


def _is_own(value: Any) -> bool:
    """The same of objects whose class is not installed, but part of the user's program."""
    if isinstance(value, (type, types.ModuleType)):
        return False
    if _is_module(value):
        return True
    module = sys.modules.get(type(value).__module__)
    return _is_users(value) and "site-packages" not in (getattr(module, "__file__", None) or "")


_CHANGING = (*PLAIN, dict, list, types.FunctionType)
"""What attributes of a Python module can be expected to change."""
_COMPUTES_NOTHING = frozenset(
    f"__{name}__" for name in (
        "init", "new", "repr", "str", "hash", "eq", "del", "reduce", "reduce_ex", "getstate",
        "setstate", "copy", "deepcopy", "init_subclass", "class_getitem", "post_init", "format",
        "sizeof", "dir",
    )
)  # fmt: skip
"""Special methods of users' classes that a program's values do not come from."""


@functools.lru_cache(maxsize=1024)
def _operators(kind: type) -> tuple[types.FunctionType, ...]:
    """The special methods that a user's class defines: calls, indexing, arithmetic, contexts."""
    if _is_ours(kind):
        return ()
    return tuple(
        value for name, value in vars(kind).items()
        if isinstance(value, types.FunctionType) and name.startswith("__")
        and name.endswith("__") and name not in _COMPUTES_NOTHING
    )  # fmt: skip
