"""Data classes that are cheap to make: ``dataclass``, ``field``, ``replace`` and ``NamedTuple``.

They mean what their namesakes of the standard library mean, which type checkers
take them for, and have the part of it that the project uses: ``frozen``,
``slots``, ``eq``, defaults and default factories.  The standard library writes
every method of every class as text and compiles it, about 1 ms a class; with
forty of them that was a third of ``import graphflow``.  Here only ``__init__`` is
compiled, when it is first asked for, and the rest is shared by all classes or closes
over an ``attrgetter``.  A class of ``typing.NamedTuple`` takes 0.15 ms (its annotations are
compiled, too), one of this takes 0.02.
"""

from __future__ import annotations

from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import NamedTuple
else:
    from _collections import _tuplegetter  # of CPython, as its own named tuples have them

    _MISSING = object()
    _set = object.__setattr__

    class _Default:
        """What :func:`field` says of one field."""

        def __init__(self, factory: Any, value: Any, shown: bool) -> None:
            self.factory, self.value, self.shown = factory, value, shown

    def field(*, default: Any = _MISSING, default_factory: Any = None, repr: bool = True) -> Any:
        """A field with a default, one made by a function, or one left out of the ``repr``."""
        return _Default(default_factory, default, repr)

    def replace(record: Any, /, **changes: Any) -> Any:
        """A copy of ``record`` with some fields changed."""
        for name in record.__record_fields__:
            if name not in changes:
                changes[name] = getattr(record, name)
        return type(record)(**changes)

    def dataclass(
        cls: Any = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True
    ) -> Any:
        """Give a class the methods that its annotated fields ask for."""
        if cls is None:
            return lambda made: dataclass(made, frozen=frozen, slots=slots, eq=eq)
        annotated = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 (inspect is slow)
        shared = ("ClassVar", "typing.ClassVar")
        own = [name for name, kind in annotated.items() if not str(kind).startswith(shared)]
        defaults = dict(getattr(cls, "__record_defaults__", {}))
        defaults.update((name, cls.__dict__[name]) for name in own if name in cls.__dict__)
        inherited = getattr(cls, "__record_fields__", ())
        names = (*inherited, *(n for n in own if n not in inherited))
        methods = _methods(cls, names, defaults, frozen, eq)
        made = (_with_slots if slots else _with_methods)(cls, own, methods, frozen)
        initialiser = made.__dict__["__init__"]
        if isinstance(initialiser, _Initialiser):
            initialiser.owner = made
        return made

    def _methods(cls: Any, names: Any, defaults: Any, frozen: bool, eq: bool) -> dict[str, Any]:
        """The attributes a class is given; what it defines itself stays."""
        shown = [n for n in names if getattr(defaults.get(n), "shown", True)]
        made = {
            "__record_fields__": names,
            "__record_defaults__": defaults,
            "__match_args__": names,
            "__init__": _Initialiser(names, defaults, frozen),
            "__repr__": _representation(shown),
        }
        if eq:
            values = _values(names)
            made["__eq__"] = _equality(values)
            made["__hash__"] = (lambda self: hash(values(self))) if frozen else None
        if frozen:
            made["__setattr__"] = _refuse_set
            made["__delattr__"] = _refuse_delete
        kept = {name for name in made if cls.__dict__.get(name) is not None}
        return {k: v for k, v in made.items() if k not in kept or k.startswith("__record")}

    def _with_methods(cls: Any, own: list[str], methods: dict[str, Any], frozen: bool) -> Any:
        """The class itself, with ``methods``."""
        for name, method in methods.items():
            setattr(cls, name, method)
        for name in own:
            if isinstance(cls.__dict__.get(name), _Default):
                delattr(cls, name)
        return cls

    def _with_slots(cls: Any, own: list[str], methods: dict[str, Any], frozen: bool) -> Any:
        """The class once more, with a slot for each of its fields."""
        if frozen:  # pickle would set the slots one by one, which is refused
            methods.setdefault("__getstate__", _get_state)
            methods.setdefault("__setstate__", _set_state)
        namespace = {k: v for k, v in cls.__dict__.items() if k not in own}
        namespace.update(methods, __slots__=tuple(own))
        for name in ("__dict__", "__weakref__"):
            namespace.pop(name, None)
        made = type(cls)(cls.__name__, cls.__bases__, namespace)
        made.__qualname__ = cls.__qualname__
        return made

    class _Initialiser:
        """Stands for ``__init__`` until it is first looked up, which compiles it."""

        owner: Any

        def __init__(self, names: Any, defaults: Any, frozen: bool) -> None:
            self._facts = names, defaults, frozen

        def __get__(self, record: Any, cls: Any = None) -> Any:
            made = _initialiser(self.owner, *self._facts)
            self.owner.__init__ = made
            return made if record is None else made.__get__(record, cls)

    def _initialiser(cls: Any, names: Any, defaults: Any, frozen: bool) -> Any:
        """``__init__``, written as text, so that a call is as quick as one by hand."""
        scope: dict[str, Any] = {"_set": _set, "_made": _MISSING}
        heads, lines = ["self"], []
        for name in names:
            default, value = defaults.get(name, _MISSING), name
            if isinstance(default, _Default) and default.factory is not None:
                scope[f"_new_{name}"] = default.factory
                heads.append(f"{name}=_made")
                value = f"_new_{name}() if {name} is _made else {name}"
            elif default is not _MISSING:
                scope[f"_default_{name}"] = (
                    getattr(default, "value", default) if isinstance(default, _Default) else default
                )
                heads.append(f"{name}=_default_{name}")
            else:
                heads.append(name)
            slot = getattr(cls, name, None) if frozen else None
            if isinstance(slot, MemberDescriptorType):  # a third less than by the slot's name
                scope[f"_set_{name}"] = slot.__set__
                lines.append(f"_set_{name}(self, {value})")
            else:
                lines.append(
                    f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}"
                )
        if hasattr(cls, "__post_init__"):
            lines.append("self.__post_init__()")
        body = "\n ".join(lines) or "pass"
        exec(f"def __init__({', '.join(heads)}):\n {body}", scope)
        made = scope["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        return made

    def _values(names: Any) -> Any:
        """A function from a record to the tuple of its fields."""
        if len(names) > 1:
            return attrgetter(*names)
        return lambda self: tuple(getattr(self, name) for name in names)

    def _equality(values: Any) -> Any:
        def __eq__(self: Any, other: Any) -> Any:
            if other.__class__ is self.__class__:
                return self is other or values(self) == values(other)
            return NotImplemented

        return __eq__

    def _representation(names: Any) -> Any:
        def __repr__(self: Any) -> str:
            fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            return f"{type(self).__qualname__}({fields})"

        return __repr__

    def _refuse_set(self: Any, name: str, value: Any) -> None:
        raise AttributeError(f"cannot assign to field {name!r}: {type(self).__name__} is frozen")

    def _refuse_delete(self: Any, name: str) -> None:
        raise AttributeError(f"cannot delete field {name!r}: {type(self).__name__} is frozen")

    def _get_state(self: Any) -> list[Any]:
        return [getattr(self, name) for name in self.__record_fields__]

    def _set_state(self: Any, state: list[Any]) -> None:
        for name, value in zip(self.__record_fields__, state, strict=True):
            _set(self, name, value)

    class _NamedTupleType(type):
        """Makes of the annotated fields of a class what they are in a tuple."""

        def __new__(cls: Any, name: str, bases: Any, namespace: dict[str, Any]) -> Any:
            if any(isinstance(base, cls) and base.__bases__ != (tuple,) for base in bases):
                return type.__new__(cls, name, bases, namespace)  # an ordinary class of one
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {f: namespace[f] for f in fields if f in namespace}
            namespace.update((f, _tuplegetter(i, f)) for i, f in enumerate(fields))
            namespace.update(
                __slots__=(), _fields=fields, _field_defaults=defaults, __match_args__=fields
            )
            return type.__new__(cls, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_NamedTupleType):
        """A tuple whose entries have names: ``class Pair(NamedTuple): first: int; second: int``."""

        def __new__(cls, *values: Any, **named: Any) -> Any:
            """The tuple of ``values`` and ``named`` ones, in the order of the fields."""
            if named or len(values) != len(cls._fields):
                values = _completed(cls, values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values: Any) -> Any:
            """The tuple of these values, all of them, whatever ``__new__`` of a subclass takes."""
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"expected {len(cls._fields)} values, got {len(made)}")
            return made

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, /, **named: Any) -> Any:
            made = self._make(named.pop(f, value) for f, value in zip(self._fields, self))
            if named:
                raise TypeError(f"got unexpected field names: {list(named)}")
            return made

        def __getnewargs__(self) -> Any:
            return tuple(self)

        def __repr__(self) -> str:
            fields = ", ".join(f"{f}={value!r}" for f, value in zip(self._fields, self))
            return f"{type(self).__name__}({fields})"

    def _completed(cls: Any, values: Any, named: dict[str, Any]) -> tuple[Any, ...]:
        """The entries of a named tuple, some given by name, some not at all."""
        fields = cls._fields
        given = dict(zip(fields, values))
        twice = [f for f in named if f in given]
        found = {**cls._field_defaults, **given, **named}
        missing = [f for f in fields if f not in found]
        if len(values) > len(fields) or len(found) > len(fields) or twice or missing:
            raise TypeError(
                f"{cls.__name__}() has the fields {', '.join(fields)}; "
                f"got {len(values)} values and {', '.join(named) or 'no names'}"
            )
        return tuple([found[f] for f in fields])


__all__ = ["NamedTuple", "dataclass", "field", "replace"]
