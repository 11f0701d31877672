"""One thing that a function reads from outside: how to read it again, and what it was.

A compiled call compares each with what it was when the program was traced, by
identity: a few dozen nanoseconds each.  :mod:`graphflow.reach` finds them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphflow.records import dataclass

PLAIN = (bool, int, float, str, bytes, type(None), tuple, frozenset)


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
        before, after = (dict(entries(self.holder.kind, values)) for values in (self.value, now))
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
        try:
            return getattr(self.object, name, None)
        except Exception:  # whatever the object raises, its user will see
            return None


class Contents:
    """The items of a list, set or dictionary; the same tuple as long as they are the same."""

    __slots__ = ("before", "kind", "source")

    def __init__(self, source: Any) -> None:
        self.source, self.kind = source, type(source)
        self.before = flat(source)

    def get(self, key: str) -> Any:
        """The tuple of before if every item is still the same object, else a new one."""
        before, now = self.before, flat(self.source)
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


class Numbers:
    """What a small NumPy array holds; the same bytes as long as that is the same."""

    __slots__ = ("array", "before")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.before = array.tobytes()

    def get(self, key: str) -> Any:
        """The bytes of before if no number changed, else new ones."""
        now = self.array.tobytes()
        return self.before if now == self.before else now


def _form(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return (str(array.dtype), array.shape, array.strides, array.__array_interface__["data"][0])


def array_read(array: np.ndarray[Any, Any], name: str) -> Read:
    """The read that notices an array resized or moved in place."""
    holder = ArrayForm(array)
    return Read(holder, "form", holder.before, name)


def numbers_read(array: np.ndarray[Any, Any], name: str) -> Read:
    """The read that notices another number in a small array."""
    holder = Numbers(array)
    return Read(holder, "numbers", holder.before, name)


def contents_read(source: Any, name: str) -> Read:
    """The read that notices another item in a list or dictionary."""
    holder = Contents(source)
    return Read(holder, "contents", holder.before, name)


def flat(source: Any) -> tuple[Any, ...]:
    """The items of a container; the keys of a dictionary, then its values."""
    return (*source, *source.values()) if isinstance(source, dict) else tuple(source)


def entries(kind: type, values: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """Keys or positions of a container of this kind, each with its item."""
    if issubclass(kind, dict):
        half = len(values) // 2
        return zip(values[:half], values[half:])
    return iter(enumerate(values))
